"""All scenarios, in the order of the scoreboard."""

from __future__ import annotations

from tests.conformance.downloads import PULLING
from tests.conformance.uploadfaults import PUSHING_FAULTS, SECRETS
from tests.conformance.uploads import PUSHING, REFERRERS

SCENARIOS = (*PUSHING, *PUSHING_FAULTS, *SECRETS, *PULLING, *REFERRERS)
