"""What the tests of the pages share: their fenced blocks, and how those that do not simply run are checked."""
