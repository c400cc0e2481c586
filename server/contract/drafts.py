"""A draft: a task that nobody works on before it is published."""

from server.contract.runs import StartRequest


class PublishRequest(StartRequest):
    """What the run of a published draft is to carry, and whether the drafts below it come along."""

    subtree: bool = False
