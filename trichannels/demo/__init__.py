"""The chat that ``trichannels demo`` serves: ``chat`` is the application, ``requests`` what a page may ask of it,
``pages`` and ``web/`` the page itself. Read ``chat`` first: it is meant as an example to copy from."""
