"""The two ways in which a command ends badly, each with one line for the person who typed it."""


class UserError(Exception):
    """Something the user can put right: a wrong name, a bad file, a missing shard. Exit code 2."""

    exit_code = 2


class RunFailed(UserError):
    """A run was started and did not end well: a crash, a stall, a loss that does not hold. Exit code 1."""

    exit_code = 1
