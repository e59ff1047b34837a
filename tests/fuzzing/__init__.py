"""The server's input under a fuzzer: ``acts`` decode bytes, ``memory`` is the connection, ``apps`` the applications.

``replay.run`` drives one input and checks; ``python -m tests.fuzzing`` fuzzes, guided by coverage (needs ``atheris``).
"""
