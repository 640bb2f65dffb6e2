"""python -m services.prior_authorization <role or command>"""

from services.prior_authorization import reading_tool, scorecard
from services.prior_authorization.service import ROLES, Settings, build
from shared.kit.run import main

TOOLS = (reading_tool.TOOL, scorecard.TOOL)

main("prior_authorization", Settings, build, ROLES, TOOLS)
