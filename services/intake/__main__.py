"""``python -m services.intake <role>``."""

from services.intake.service import Settings, build
from shared.kit.run import main

if __name__ == "__main__":
    main("intake", Settings, build)
