"""The table."""


def write(root):
    pass
