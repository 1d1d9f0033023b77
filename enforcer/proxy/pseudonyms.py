"""Step 4 of 6, inspect: the maskers of one session whose rules pseudonymise.

Gets the masks of a rule; hands on what puts pseudonyms into requests, and what takes them back in their answers, with
the vault that both share: the session's own, or the executor's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from enforcer.flow import Flow
from enforcer.masking.answers import Answers
from enforcer.masking.errors import MaskError
from enforcer.masking.masker import Masker, masker_for, pseudonymiser
from enforcer.masking.pseudonyms import SessionVault, Vault
from enforcer.verdict import MaskSpec, Pseudonyms

if TYPE_CHECKING:
    from enforcer.proxy.environment import Environment

Pair = tuple[Masker, Masker]


class SessionMaskers:
    """Made once per session and pair of masks: a WebSocket's answers belong to one exchange, its requests to others."""

    def __init__(self, environment: Environment) -> None:
        self._environment = environment
        self._session: SessionVault | None = None
        self._made: dict[tuple[MaskSpec, MaskSpec], Pair] = {}

    def of(self, flow: Flow, answers: MaskSpec, requests: MaskSpec, pseudonyms: Pseudonyms) -> Pair:
        """For answers and for requests. Raises MaskError where pseudonyms cannot be kept."""
        made = self._made.get((answers, requests))
        if made is None:
            keys, vault = self._environment.mask_keys, self._vault(flow, pseudonyms)
            masker = masker_for(answers, keys) if answers else None
            made = Answers(masker, pseudonymiser(requests, vault)), Masker(requests, keys, vault)
            self._made[answers, requests] = made
        return made

    def _vault(self, flow: Flow, pseudonyms: Pseudonyms) -> Vault:
        if pseudonyms.scope == "executor":
            store = self._environment.vaults
            if store is None:
                raise MaskError("pseudonyms of executors cannot be kept here; restart the enforcer")
            return store.vault(flow.executor.ident, pseudonyms.expires)
        if self._session is None:
            self._session = SessionVault()
        return self._session
