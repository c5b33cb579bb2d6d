"""The training program: ``python -m train CONFIG WORKDIR [--section.field value]``."""
