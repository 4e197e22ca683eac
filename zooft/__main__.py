"""``python -m zooft``, which launchers such as torchrun need."""

from zooft.cli import main

main()
