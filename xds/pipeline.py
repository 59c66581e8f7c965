"""In which order one proxy is sent its types, so that it never lacks what it uses. Pure; shared by both protocols.

Make before break: three stages, each a whole snapshot.

    target   the newest; endpoints and secrets come from here, at once (those that only an older stage has, from there:
             a cluster must not be left without its endpoints because the world has moved on meanwhile)
    making   whose clusters are being delivered; what older stages still need stays beside them
    staged   whose clusters and endpoints the proxy has accepted; listeners and routes come from here

Clusters that only older stages had are removed when the listeners and routes of `staged` are accepted. A proxy that
refuses a cluster keeps its listeners and routes: newer ones may refer to what it lacks. (Envoy holds back the ACK of
clusters while they warm, so "accepted" means "usable"; therefore endpoints and secrets must never wait for that ACK.)
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Generic, NamedTuple

from mesh.position import Position
from projector.snapshot import XdsResource
from xds.actions import Acked, Action, Nacked, Response, Send, Settled
from xds.typestate import Outstanding, TypeState
from xds.view import CLUSTER, ENDPOINT, LISTENER, ROUTE, SECRET, Named, View


class Stage(NamedTuple):
    """A snapshot on its way through the pipeline."""

    view: View
    position: Position


class Offer(NamedTuple):
    """What one type may be sent now: `source`, of which `position` and `version` (SotW) speak.

    `only_owed`: nothing but names that were asked for. `removable`: held names that may be removed now. `later`: what a
    newer stage will bring, whose names are not reported missing.
    """

    source: Named
    position: Position
    version: str
    only_owed: bool
    removable: set[str]
    later: Named


class Pipeline(ABC, Generic[Response]):
    """The books of all types of one stream and the order among them."""

    tells_gone_always: bool
    """Whether a response can name what is gone for every type (delta), or only by leaving it out of a full set."""

    def __init__(self, nonce_prefix: str) -> None:
        self._nonce_prefix, self._nonce_count = nonce_prefix, 0
        self._types: dict[str, TypeState] = {}
        self._writing = self._grace_over = self._holds_config = False
        self._target: Stage | None = None
        self._making: Stage | None = None
        self._staged: Stage | None = None
        self._barrier: set[str] = set()
        self._settled_at: Position | None = None

    @abstractmethod
    def _compose(self, books: TypeState, offer: Offer) -> Send[Response] | None:
        """The next response of this type from what is offered, or None; notes what it holds as outstanding."""

    @abstractmethod
    def _recognise(self, books: TypeState, view: View) -> None:
        """Compare what the first request claimed to hold with `view` (once)."""

    def _open(self, books: TypeState, holds_config: bool) -> None:
        """The first request of a type on this stream."""
        self._types[books.type_url] = books
        self._holds_config = self._holds_config or holds_config
        if books.type_url == CLUSTER:
            # What was staged while there were no clusters to wait for has to wait now.
            self._making = self._staged = None

    def _next(self, target: Stage) -> list[Action[Response]]:
        """The next response, or the news that there is none left."""
        self._advance(target)
        send = self._clusters() or self._endpoints() or self._secrets() or self._listeners() or self._routes()
        if send is not None:
            self._writing = True
            return [send]
        if self._settled_at != target.position and self._is_settled():
            self._settled_at = target.position
            return [Settled(target.position)]
        return []

    def _advance(self, target: Stage) -> None:
        """Move stages on as far as what the proxy has accepted allows."""
        if self._making is None:
            self._begin(target)
        while self._making is not None:
            making = self._making
            if (clusters := self._types.get(CLUSTER)) is not None:
                self._recognise(clusters, making.view)
            if self._is_made(making):
                self._staged = making
            elif not self._is_stuck(making):
                break
            if making is target:
                break
            self._begin(target)
        if self._staged is not None and (listeners := self._types.get(LISTENER)) is not None:
            self._recognise(listeners, self._staged.view)

    def _begin(self, stage: Stage) -> None:
        self._making = stage
        if (endpoints := self._types.get(ENDPOINT)) is not None:
            self._barrier |= {resource.name for resource in endpoints.changes(stage.view.of(ENDPOINT))}

    def _barrier_left(self, making: Stage) -> set[str]:
        """Endpoints that listeners and routes of `making` still wait for."""
        endpoints = self._types.get(ENDPOINT)
        if endpoints is None or not self._barrier:
            self._barrier.clear()
        else:
            present = making.view.of(ENDPOINT)
            self._barrier = {name for name in self._barrier if endpoints.wants(name) and name in present}
        return self._barrier

    def _is_made(self, making: Stage) -> bool:
        clusters = self._types.get(CLUSTER)
        if clusters is not None and not clusters.complete(making.view.of(CLUSTER)):
            return False
        return not self._barrier_left(making)

    def _is_stuck(self, making: Stage) -> bool:
        """Not made, and nothing more will come of it: the proxy refused something."""
        clusters, endpoints = self._types.get(CLUSTER), self._types.get(ENDPOINT)
        if clusters is not None and not clusters.resolved(making.view.of(CLUSTER)):
            return False
        return endpoints is None or endpoints.resolved(self._in_play(ENDPOINT))

    def _source(self, books: TypeState) -> Stage | None:
        """Where this type is served from now; None: not yet."""
        if books.type_url == CLUSTER:
            return self._making
        if books.type_url in (ENDPOINT, SECRET):
            return self._target
        if self._staged is None and books.empty_handed and self._making and self._is_stuck(self._making):
            # It has nothing that could break, and most of it will work.
            return self._making
        return self._staged

    def _clusters(self) -> Send[Response] | None:
        books, stage = self._types.get(CLUSTER), self._making
        if books is None or stage is None or books.outstanding:
            return None
        removable = set(books.gone(self._needed_clusters())) if self._old_is_unused() else set()
        send = self._compose(books, self._offer(CLUSTER, stage, removable))
        if send is not None and books.outstanding:
            self._resend_endpoints(books.outstanding)
        return send

    def _needed_clusters(self) -> Named:
        assert self._making is not None  # noqa: S101
        needed = self._making.view.of(CLUSTER)
        staged = needed if self._staged is None else self._staged.view.of(CLUSTER)
        return needed if staged is needed else {**staged, **needed}

    def _resend_endpoints(self, clusters: Outstanding) -> None:
        """A changed cluster warms anew and waits for its endpoints, which the proxy does not ask for again."""
        endpoints = self._types.get(ENDPOINT)
        if endpoints is None:
            return
        present = self._in_play(ENDPOINT)
        again = {name for name in clusters.changed if endpoints.wants(name) and name in present}
        endpoints.owed |= again
        endpoints.touch()
        self._barrier |= again

    def _old_is_unused(self) -> bool:
        """Whether listeners and routes of `staged` are all accepted, so that what only older ones used may go."""
        if self._staged is None:
            return False
        for type_url in (LISTENER, ROUTE):
            books = self._types.get(type_url)
            if books is None:
                if self._holds_config and not self._grace_over:
                    return False
                continue
            source = self._staged.view.of(type_url)
            if not books.complete(source):
                return False
            if (self.tells_gone_always or type_url == LISTENER) and books.gone(source):
                return False
        return True

    def _after_clusters(self, type_url: str) -> Send[Response] | None:
        """Endpoints and secrets: additions at once, removals after those of clusters."""
        books, stage = self._types.get(type_url), self._target
        if books is None or stage is None or books.outstanding:
            return None
        clusters, removable, source = self._types.get(CLUSTER), set[str](), self._in_play(type_url)
        if self._old_is_unused() and not (
            clusters is not None and (clusters.outstanding or clusters.gone(self._needed_clusters()))
        ):
            removable = set(books.gone(source))
        version = stage.view.version(type_url) if source is stage.view.of(type_url) else ""
        return self._compose(books, Offer(source, stage.position, version, False, removable, {}))

    def _endpoints(self) -> Send[Response] | None:
        return self._after_clusters(ENDPOINT)

    def _secrets(self) -> Send[Response] | None:
        return self._after_clusters(SECRET)

    def _listeners(self) -> Send[Response] | None:
        books = self._types.get(LISTENER)
        if books is None or books.outstanding or (stage := self._source(books)) is None:
            return None
        removable = set(books.gone(stage.view.of(LISTENER)))
        return self._compose(books, self._offer(LISTENER, stage, removable))

    def _routes(self) -> Send[Response] | None:
        books = self._types.get(ROUTE)
        if books is None or books.outstanding or (stage := self._source(books)) is None:
            return None
        listeners = self._types.get(LISTENER)
        listeners_busy = listeners is not None and not listeners.resolved(stage.view.of(LISTENER))
        removable = set[str]() if listeners_busy else set(books.gone(stage.view.of(ROUTE)))
        return self._compose(books, self._offer(ROUTE, stage, removable, listeners_busy))

    def _offer(self, type_url: str, stage: Stage, removable: set[str], only_owed: bool = False) -> Offer:
        later = self._target.view.of(type_url) if self._target is not None else {}
        view = stage.view
        return Offer(view.of(type_url), stage.position, view.version(type_url), only_owed, removable, later)

    def _in_play(self, type_url: str) -> Named:
        """Endpoints or secrets of all stages, each in its newest content."""
        assert self._target is not None  # noqa: S101
        newest = self._target.view.of(type_url)
        stages = (self._staged, self._making)
        older: list[Named] = [stage.view.of(type_url) for stage in stages if stage is not None]
        if all(resources is newest for resources in older):
            return newest
        merged: dict[str, XdsResource] = {}
        for resources in (*older, newest):
            merged.update(resources)
        return merged

    def _is_settled(self) -> bool:
        if not (self._staged is self._making is self._target):
            return False
        if self._target is None or not self._old_is_unused():
            return False
        for type_url, books in self._types.items():
            source = self._target.view.of(type_url)
            if not books.complete(source):
                return False
            if (self.tells_gone_always or books.knows_wildcard) and books.gone(source):
                return False
        return True

    # --- answers to responses

    def _answered(self, books: TypeState, refused: bool, detail: str) -> list[Action[Response]]:
        """The proxy accepted or refused the outstanding response of this type."""
        response = books.outstanding
        if response is None:
            return []
        books.outstanding = None
        books.touch()
        if refused:
            names = books.note_refused(response, detail)
            return [Nacked(books.type_url, response.position, names, detail)]
        books.note_accepted(response)
        if books.type_url == ENDPOINT:
            self._barrier -= response.resources.keys()
        return [Acked(books.type_url, response.position)]

    def _next_nonce(self) -> str:
        self._nonce_count += 1
        return f"{self._nonce_prefix}.{self._nonce_count}"
