"""What the entry point `torch.backends` names: torch calls it at the end of its own import."""


def load() -> None:
    """Do nothing more: importing the package registered the device.

    It is a module of its own because a program that imports genie first is here while genie
    still imports torch: the package is then half imported, and this file is whole.
    """
