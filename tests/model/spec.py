# SPDX-License-Identifier: BSD-2-Clause
"""The model of a migration as a program: it follows the events of a trace, and refuses what cannot be.

Each method on_SIDE_EVENT, send_SIDE_TYPE and receive_SIDE_TYPE is a transition of
docs/model/migration.pml, or a part of one, and does nothing but to demand what that one demands and
to note what it notes. docs/model/README.md has the table of both.
"""

import collections

MAIN, MULTIFD, PREEMPT = 1, 2, 3
STAGING = 0xffff
PAGE = 4096
SET_UP, FAILED = 1, 2                               # session
OPENING, READY, REFUSED = 1, 2, 3                   # channel
STOPPED, RESUMED, RUNS, ABANDONED = 1, 2, 3, 4      # guest
SETUP, PRECOPY, SWITCHOVER, POSTCOPY, PAUSED, DONE = 1, 2, 3, 4, 5, 6
HERE, IN_SLOT, ZERO_PAGE, COMING = 1, 2, 3, 4       # answers

PHASES = {None: {SETUP}, SETUP: {PRECOPY, DONE}, PRECOPY: {SWITCHOVER, DONE},
          SWITCHOVER: {POSTCOPY, PAUSED, DONE}, POSTCOPY: {PAUSED, DONE}, PAUSED: {POSTCOPY, DONE}}

Event = collections.namedtuple("Event", "side name channel a b c")


class Refused(Exception):
    """What the trace says cannot be, in words."""


def demand(condition, words):
    if not condition:
        raise Refused(words)


def pages(place, length):
    """The pages of a place: (region, number)."""
    region, off = place >> 48, place & ((1 << 48) - 1)
    demand(length and not off % PAGE and not length % PAGE, "not whole pages")
    return [(region, n) for n in range(off // PAGE, (off + length) // PAGE)]


def kind(channel):
    return channel >> 16


def read(path):
    """The trace: types of messages by number, events of each side, and how it ended."""
    types, events, ends = {}, {"S": [], "D": []}, {}
    with open(path, encoding="utf-8") as lines:
        for line in lines:
            word = line.split()
            if word[0] == "type":
                types[int(word[1])] = word[2]
            elif word[0] == "end":
                ends[word[1]] = word[2], word[3] == "1"
            else:
                events[word[0]].append(Event(word[0], word[1], *map(int, word[2:])))
    return types, events, ends


class Side:
    """What both have: the session at hand and its channels."""

    def __init__(self):
        self.session = None                 # its first epoch; None: there is none
        self.failed = True                  # the last one, or there was none
        self.highest = 0                    # epoch of any channel so far
        self.epochs = {}                    # of each channel, of its last opening
        self.opening, self.ready = {}, {}   # likewise, epoch
        self.sent, self.received = {}, {}   # messages, by channel and epoch
        self.types = set()                  # of messages that have come in this session
        self.multifd = set()                # channels
        self.fenced = {}                    # of the epoch at hand: writes and bytes
        self.drained = 0
        self.sealed = False                 # S: confirmed; D: the keys are gone


class Spec:
    """State of both sides, and the messages between them."""

    def __init__(self, types, events):
        self.types = types
        self.s, self.d = Side(), Side()
        self.way = collections.defaultdict(collections.deque)  # by sender, channel, epoch
        # The source's.
        self.phase = None
        self.source_runs = True
        self.run_sent = False               # the guest may run there
        self.seal_sent = self.state_sent = False
        self.writes = collections.Counter()     # of a channel in this session: posted
        self.written = collections.Counter()    # ... and completed
        self.epoch_writes = collections.defaultdict(lambda: [0, 0])
        self.dirty_sent = {}                    # pages written in this epoch
        self.fence_due = set()                  # fences that were counted and not sent
        self.drained_came = False
        self.taken, self.there, self.promised = set(), set(), set()
        self.asked_of = collections.defaultdict(collections.deque)
        self.answer_due, self.push_due = {}, collections.defaultdict(list)
        self.staged = collections.Counter()     # bytes in a slot, and PAGES was not sent yet
        # The destination's.
        self.destination_runs = self.did_run = False
        self.drained_due = self.sealed_due = self.running_due = False
        self.arming = False                 # a map has come: what it names may be discarded
        self.armed = self.used = False
        self.lacking, self.installed, self.arrived = set(), set(), set()
        self.again = set()                  # lacking pages that are discarded once more
        self.trapped, self.asked = set(), set()
        self.open = collections.defaultdict(collections.deque)
        self.snapshot = None
        self.request_due = {}
        self.fence_came, self.page_came, self.request_came = {}, {}, {}
        # Handlers by name, once.
        self.handlers = {(e.side, e.name): getattr(self, f"on_{e.side}_{e.name}", None)
                         for side in events.values() for e in side}

    def of(self, side):
        return self.s if side == "S" else self.d

    def enabled(self, e):
        """May it happen now, as far as the other side is concerned?"""
        other = self.d if e.side == "S" else self.s
        if e.name == "receive":
            return bool(self.way["D" if e.side == "S" else "S", e.channel, e.c])
        if e.name == "session" and e.a == SET_UP and e.side == "S":
            return other.session is not None and other.session >= e.b
        if e.name == "channel" and e.a == OPENING and e.side == "D":
            return other.epochs.get(e.channel, 0) >= e.b
        if e.name == "channel" and e.a == READY and e.side == "S":
            return other.epochs.get(e.channel, 0) >= e.b
        return True

    def step(self, e):
        handler = self.handlers[e.side, e.name]
        demand(handler, "a probe that this side does not have")
        handler(e)

    # -- sessions and channels: RESUME, and the epochs that messages carry ------------------

    def set_up(self, side, e):
        if e.a == FAILED:
            demand(side.session is not None and not side.failed, "fails twice, or before it is")
            side.failed = True
            return False
        demand(side.failed, "a session while there is one")
        demand(e.b > side.highest and (side.session is not None or e.b == 1),
               "a session in an old epoch")
        side.session, side.failed, side.highest = e.b, False, e.b
        side.opening, side.ready, side.types = {}, {}, set()
        return True

    def on_S_session(self, e):
        again = self.s.session is not None
        if not self.set_up(self.s, e):
            return
        demand(not again or self.phase == PAUSED, "resumes what is not paused")
        self.writes.clear()
        self.written.clear()
        self.epoch_writes.clear()
        self.asked_of.clear()
        self.answer_due, self.push_due = {}, collections.defaultdict(list)
        self.request_came = {}
        self.staged.clear()
        self.state_sent = False
        if again:
            self.taken, self.promised = set(), set()

    def on_D_session(self, e):
        again = self.d.session is not None
        if not self.set_up(self.d, e):
            return
        demand(not again or self.armed, "resumes what was not armed")
        self.arrived, self.asked, self.snapshot = set(), set(), None
        self.open.clear()
        self.request_due, self.page_came = {}, {}

    def on_channel(self, side, e):
        demand(side.session is not None, "a channel without a session")
        if e.a == OPENING:
            demand(e.b >= side.session and e.b > side.epochs.get(e.channel, 0),
                   "a channel in an old epoch")
            side.opening[e.channel] = side.epochs[e.channel] = e.b
            side.highest = max(side.highest, e.b)
            side.ready.pop(e.channel, None)
            if kind(e.channel) == MULTIFD:
                side.multifd.add(e.channel)
            return
        demand(side.opening.pop(e.channel, None) == e.b, "a channel that was not being opened")
        if e.a == READY:
            side.ready[e.channel] = e.b

    def on_S_channel(self, e):
        self.on_channel(self.s, e)

    def on_D_channel(self, e):
        self.on_channel(self.d, e)

    # -- messages ---------------------------------------------------------------------------

    def on_send(self, side, e):
        name = self.types.get(e.a)
        demand(name, "a message of no type")
        demand(side.ready.get(e.channel) == e.c, "a message on a channel that is not ready")
        key = e.side, e.channel, e.c
        demand(e.b == side.sent.get(key, 0) + 1, "a message that is not the next one")
        side.sent[key] = e.b
        check = getattr(self, f"send_{e.side}_{name}", None)
        self.way[key].append((e.a, e.b, check(e) if check else None))

    def on_receive(self, side, e):
        name = self.types.get(e.a)
        sender = "D" if e.side == "S" else "S"
        key = sender, e.channel, e.c
        demand(side.ready.get(e.channel) == e.c, "a message on a channel that is not ready")
        demand(e.b == side.received.get(key, 0) + 1, "not the next message")
        kind_sent, number, payload = self.way[key].popleft()
        demand((kind_sent, number) == (e.a, e.b), "not the message that was sent")
        side.received[key] = e.b
        check = getattr(self, f"receive_{e.side}_{name}", None)
        if check:
            check(e, payload)
        side.types.add(name)

    def on_S_send(self, e):
        self.on_send(self.s, e)

    def on_D_send(self, e):
        self.on_send(self.d, e)

    def on_S_receive(self, e):
        self.on_receive(self.s, e)

    def on_D_receive(self, e):
        self.on_receive(self.d, e)

    # -- precopy: sender(), one_round(), receiver() --------------------------------------------

    def on_S_write(self, e):
        channel, number, place, length = e.channel, e.a, e.b, e.c
        demand(self.s.ready.get(channel), "a write on a channel that is not ready")
        demand(number == self.writes[channel] + 1, "not the next write")
        self.writes[channel] = number
        if place >> 48 == STAGING:
            demand(self.s.sealed and self.s.ready[channel] > self.s.drained,
                   "pages on a channel that was open before the seal")
            self.staged[channel] += length
            demand(self.staged[channel] <= len(self.push_due[channel, 0]) * PAGE,
                   "more is staged than pages are pushed")
            return
        demand(self.phase in (PRECOPY, SWITCHOVER), "a write of precopy out of its phase")
        demand(not self.seal_sent and not self.s.sealed, "a write behind the seal")
        demand(channel not in self.s.fenced, "a write behind its fence")
        for page in pages(place, length):
            demand(page not in self.dirty_sent, "a page is sent again without a drain")
            self.dirty_sent[page] = channel
        count = self.epoch_writes[channel]
        count[0] += 1
        count[1] += length

    def on_S_written(self, e):
        demand(e.a == self.written[e.channel] + 1, "not the next completion")
        demand(e.a + e.b == self.writes[e.channel], "more or fewer are outstanding than were posted")
        self.written[e.channel] = e.a

    def on_S_fence(self, e):
        demand(kind(e.channel) == MULTIFD and e.channel not in self.s.fenced, "fenced twice")
        demand(self.phase in (PRECOPY, SWITCHOVER), "a fence out of its phase")
        demand(e.a == self.s.drained + 1, "a fence of another epoch")
        demand([e.b, e.c] == self.epoch_writes[e.channel], "a fence that counts other writes")
        self.s.fenced[e.channel] = e.a, e.b, e.c
        self.fence_due.add(e.channel)

    def send_S_FENCE(self, e):
        demand(e.channel in self.fence_due, "FENCE that was not counted, or twice")
        self.fence_due.discard(e.channel)
        return self.s.fenced[e.channel]

    def receive_D_FENCE(self, e, payload):
        demand(e.channel not in self.fence_came, "FENCE twice")
        self.fence_came[e.channel] = payload

    def on_D_fence(self, e):
        demand(self.fence_came.pop(e.channel, None) == (e.a, e.b, e.c), "not the fence that came")
        demand(not self.d.sealed, "a fence behind the seal")
        demand(e.channel not in self.d.fenced, "fenced twice")
        self.d.fenced[e.channel] = e.a, e.b, e.c

    def on_D_drained(self, e):
        demand(self.d.fenced and set(self.d.fenced) == self.d.multifd, "drained without all fences")
        demand({f[0] for f in self.d.fenced.values()} == {e.a} and e.a == self.d.drained + 1,
               "drained in another epoch")
        demand(not self.drained_due, "drained twice")
        self.d.drained, self.drained_due = e.a, True

    def send_D_DRAINED(self, _):
        demand(self.drained_due, "DRAINED that is not")
        self.drained_due = False
        payload, self.d.fenced = dict(self.d.fenced), {}
        return payload

    def receive_S_DRAINED(self, _, payload):
        demand(not self.drained_came, "DRAINED twice")
        demand(payload == self.s.fenced, "DRAINED that tells of other writes")
        self.drained_came = True

    def on_S_drained(self, e):
        demand(self.drained_came and not self.fence_due, "drained before DRAINED")
        demand(e.a == self.s.drained + 1, "drained in another epoch")
        demand(set(self.s.fenced) == self.s.multifd, "drained without all fences")
        demand(self.written == self.writes, "drained with writes outstanding")
        self.s.drained, self.drained_came, self.s.fenced = e.a, False, {}
        self.dirty_sent = {}
        self.epoch_writes.clear()

    # -- the switch: source(), destination() ---------------------------------------------------

    def on_S_phase(self, e):
        demand(e.a in PHASES.get(self.phase, ()), "a phase out of its turn")
        if e.a == SWITCHOVER:
            demand(not self.source_runs, "the switch while the guest runs")
        if e.a == POSTCOPY:
            demand("RUNNING" in self.s.types or "PAGE_MAP" in self.s.types,
                   "postcopy before the guest runs there")
        self.phase = e.a

    def on_S_guest(self, e):
        if e.a == STOPPED:
            demand(self.source_runs and self.phase == PRECOPY, "the guest stands still already")
            demand(not self.s.fenced and not self.dirty_sent, "stopped with a round under way")
            self.source_runs = False
            return
        demand(e.a == RESUMED and not self.source_runs, "the guest runs already")
        demand(not self.run_sent, "the guest is started again when it may run there")
        demand(not self.destination_runs, "the guest runs twice")
        self.source_runs = True

    def quiet(self):
        return (not self.s.fenced and not self.dirty_sent and not self.drained_came and
                self.written == self.writes)

    def send_S_SEAL(self, _):
        demand(self.phase == SWITCHOVER, "SEAL out of its phase")
        demand(self.s.drained and self.quiet(), "SEAL before all is drained")
        demand(not self.source_runs and not self.seal_sent, "SEAL while the guest runs, or twice")
        self.seal_sent = True
        return self.s.drained

    def receive_D_SEAL(self, _, payload):
        demand(payload == self.d.drained and not self.sealed_due and not self.d.sealed,
               "SEAL of what is not drained")
        self.sealed_due = True

    def on_D_sealed(self, e):
        demand(self.sealed_due and not self.d.sealed and e.a == self.d.drained,
               "sealed without SEAL")
        self.d.sealed = True

    def send_D_SEALED(self, _):
        demand(self.d.sealed and self.sealed_due, "SEALED before the keys are gone")
        self.sealed_due = False

    def on_S_sealed(self, e):
        demand("SEALED" in self.s.types and self.d.sealed, "sealed without SEALED")
        demand(self.quiet() and not self.s.sealed and e.a == self.s.drained,
               "sealed with writes outstanding, or twice")
        self.s.sealed = True

    def send_S_PAGE_MAP(self, _):
        demand(self.s.sealed and not self.source_runs and not self.run_sent,
               "the map before the seal")

    def send_S_ADVISE(self, _):
        demand(self.source_runs and self.phase == PRECOPY, "ADVISE when the guest stands still")

    def send_D_ADVISED(self, _):
        demand("ADVISE" in self.d.types, "ADVISED without ADVISE")
        self.used = True

    def receive_D_PAGE_MAP(self, *_):
        demand(self.d.sealed and self.used and not self.destination_runs,
               "a map before the seal")
        self.arming = True

    def on_D_discard(self, e):
        demand(self.d.sealed and self.arming, "pages are discarded before the seal")
        demand(not self.destination_runs, "pages of a guest that runs are discarded")
        for page in pages(e.a, e.b):
            demand(page not in self.installed, "a page that had come is discarded")
            demand(page not in self.lacking or page in self.again, "a page is discarded twice")
            self.again.discard(page)
            self.lacking.add(page)

    def send_D_ARMED(self, _):
        demand(self.arming and self.d.sealed, "ARMED without a map")
        self.armed, self.arming = True, False

    def send_S_STATE(self, _):
        demand(self.s.sealed and not self.source_runs and not self.run_sent,
               "device state before the seal")
        self.state_sent = True

    def send_S_RUN(self, _):
        demand(self.s.sealed, "RUN before the seal")
        demand(not self.source_runs, "RUN while the guest runs here")
        demand(self.state_sent and not self.run_sent, "RUN without the state, or twice")
        demand("ADVISED" not in self.s.types or "ARMED" in self.s.types, "RUN before ARMED")
        self.run_sent = True
        return self.s.drained

    def receive_D_RUN(self, _, payload):
        demand(payload == self.d.drained and self.d.sealed, "RUN before all is drained and sealed")

    def on_D_guest(self, e):
        if e.a == ABANDONED:
            demand(self.destination_runs, "a guest is abandoned that does not run")
            self.destination_runs = False
            return
        demand(e.a == RUNS and not self.did_run, "the guest runs twice")
        demand({"RUN", "STATE"} <= self.d.types and self.d.sealed, "it runs without RUN")
        demand(self.armed or not self.used, "it runs before it is armed")
        demand(not self.source_runs, "the guest runs on both sides")
        self.destination_runs = self.did_run = self.running_due = True

    def send_D_RUNNING(self, _):
        demand(self.destination_runs, "RUNNING when it does not")
        demand(self.running_due or "RESUME" in self.d.types, "RUNNING twice")
        self.running_due = False

    def receive_S_RUNNING(self, *_):
        demand(self.run_sent, "RUNNING without RUN")

    def send_D_RUN_REFUSED(self, _):
        demand(not self.did_run, "RUN is refused by a guest that runs")

    def receive_S_RUN_REFUSED(self, *_):
        self.run_sent = False

    # -- postcopy: page_server(), sender(), fault_thread(), receiver() ---------------------------

    def on_D_fault(self, e):
        demand(self.armed or self.arming, "a fault before it is armed")
        self.trapped.update(pages(e.a, e.b))

    def on_D_request(self, e):
        page, = pages(e.a, e.b)
        demand(page in self.trapped, "a page is asked for that nobody waits for")
        demand(page not in self.asked, "a page is asked for twice")
        demand(e.channel not in self.request_due, "a request that was not sent")
        self.asked.add(page)
        self.open[e.channel].append(page)
        self.request_due[e.channel] = page

    def send_D_REQUEST(self, e):
        demand(e.channel in self.request_due, "REQUEST for nothing")
        return self.request_due.pop(e.channel)

    def receive_S_REQUEST(self, e, page):
        self.request_came.setdefault(e.channel, collections.deque()).append(page)

    def on_S_request(self, e):
        page, = pages(e.a, e.b)
        came = self.request_came.get(e.channel)
        demand(came and came.popleft() == page, "not the request that came")
        self.asked_of[e.channel].append(page)

    def take(self, page):
        """The source takes a page's bit: it sends it."""
        demand(page not in self.taken, "a page is sent twice")
        demand(page not in self.there and page not in self.installed,
               "a page is sent that is there")
        demand(page in self.lacking, "a page is sent that nobody lacks")
        self.taken.add(page)

    def on_S_answer(self, e):
        page, = pages(e.a, e.b)
        waiting = self.asked_of[e.channel]
        demand(waiting and waiting.popleft() == page, "not the oldest request is answered")
        demand(e.channel not in self.answer_due, "an answer that was not sent")
        demand(e.c in (HERE, IN_SLOT, ZERO_PAGE, COMING), "an answer of no kind")
        if e.c == COMING:
            self.promised.add(page)
        else:
            self.take(page)
        self.answer_due[e.channel] = page, e.c

    def send_S_PAGE(self, e):
        demand(e.channel in self.answer_due, "PAGE that answers nothing")
        return self.answer_due.pop(e.channel)

    def receive_D_PAGE(self, e, payload):
        self.page_came.setdefault(e.channel, collections.deque()).append(payload)

    def on_D_answer(self, e):
        page, = pages(e.a, e.b)
        came, waiting = self.page_came.get(e.channel), self.open[e.channel]
        demand(came and came.popleft() == (page, e.c), "not the answer that came")
        demand(waiting and waiting.popleft() == page, "not the oldest request is answered")
        if e.c != COMING:
            self.arrived.add(page)

    def send_S_BULK(self, _):
        demand("RUNNING" in self.s.types, "BULK before the guest runs there")

    def on_S_push(self, e):
        demand(self.run_sent and {"RUNNING", "PAGE_MAP"} & self.s.types,
               "bulk before the guest runs there")
        demand(self.s.ready.get(e.channel, 0) > self.s.drained,
               "bulk on a channel that was open before the seal")
        page, = pages(e.a, e.b)
        self.take(page)
        self.push_due[e.channel, e.c].append(page)

    def pushed(self, e, zero):
        return self.push_due.pop((e.channel, zero), [])

    def send_S_PAGES(self, e):
        content = self.pushed(e, 0)
        demand(content, "PAGES without a page")
        demand(self.staged.pop(e.channel, 0) == len(content) * PAGE,
               "PAGES before their content is written")
        return content

    def send_S_ZERO(self, e):
        zeros = self.pushed(e, 1)
        demand(zeros or not self.s.sealed, "ZERO without a page")
        demand(e.channel not in self.s.fenced, "zero pages behind their fence")
        return zeros

    def receive_D_PAGES(self, _, payload):
        self.arrived.update(payload)

    def receive_D_ZERO(self, _, payload):
        demand(payload or not self.d.sealed, "zero pages of precopy behind the seal")
        self.arrived.update(payload)

    def on_D_install(self, e):
        demand(self.armed, "a page is installed before it is armed")
        demand(not e.c, "a page is installed that was there")
        for page in pages(e.a, e.b):
            demand(page not in self.installed, "a page is installed twice")
            demand(page in self.lacking, "a page is installed that was not lacking")
            demand(page in self.arrived, "a page is installed that has not come")
            self.arrived.discard(page)
            self.lacking.discard(page)
            self.installed.add(page)

    def send_D_COMPLETE(self, _):
        demand(self.destination_runs and not self.lacking, "COMPLETE while it lacks pages")

    def send_S_COMPLETED(self, _):
        demand("COMPLETE" in self.s.types and self.phase == POSTCOPY, "COMPLETED without COMPLETE")

    # -- recovery ----------------------------------------------------------------------------------

    def send_S_RESUME(self, _):
        demand(self.phase == PAUSED, "RESUME of what is not paused")

    def receive_D_RESUME(self, *_):
        self.arming = not self.destination_runs
        self.again = set(self.lacking) if self.arming else set()

    def send_D_PAGE_MAP(self, _):
        demand("RESUME" in self.d.types, "the map before RESUME")
        if self.snapshot is None:
            self.snapshot = set(self.installed)
        return self.snapshot

    def receive_S_PAGE_MAP(self, _, payload):
        demand(self.phase == PAUSED, "a map from the destination without a loss")
        self.there, self.taken, self.promised = set(payload), set(), set()
        if "RUNNING" not in self.s.types:
            self.run_sent = False   # no older RUN can be obeyed any more

    # -- the end -----------------------------------------------------------------------------------

    def left_over(self):
        """
        Messages of the last session that nobody received. Who lacks nothing any more waits for no
        answer that says that the page is coming.
        """
        return [self.types[m[0]] for (side, channel, epoch), queue in self.way.items()
                if self.of(side).ready.get(channel) == epoch for m in queue
                if self.types[m[0]] != "REQUEST" and
                not (self.types[m[0]] == "PAGE" and m[2][1] == COMING)]

    def finish(self, ends):
        (source, source_runs), (destination, destination_runs) = ends["S"], ends["D"]
        demand(source_runs == self.source_runs, "the source's guest is not as the trace says")
        demand(destination_runs == self.destination_runs, "nor is the destination's")
        demand(not (source_runs and destination_runs), "the guest runs on both sides")
        demand(self.phase == DONE, "the end is missing")
        for side in (self.s, self.d):
            demand(not side.opening or side.failed, "a channel is opened and never ready")
        if source != "completed":
            demand(self.s.failed and self.d.failed, "a session that did not fail, but did")
            return
        demand(destination == "completed" and self.destination_runs, "completed, and it does not run")
        demand(not self.lacking and not self.arrived, "completed, and pages are lacking")
        demand(not self.promised - self.taken, "a page was said to come, and did not")
        late = {page for waiting in self.open.values() for page in waiting}
        demand(late <= self.installed, "a request was not answered")
        if not self.s.failed and not self.d.failed:
            demand(not self.left_over(), "messages were not received")
            demand(self.written == self.writes, "writes are outstanding at the end")


def replay(trace, first):
    """Both sides in one order, side @first as far ahead as it can be."""
    types, events, ends = trace
    spec = Spec(types, events)
    sides = [events[first], events["D" if first == "S" else "S"]]
    at = [0, 0]
    while True:
        for i in (0, 1):
            if at[i] < len(sides[i]) and spec.enabled(sides[i][at[i]]):
                break
        else:
            break
        event = sides[i][at[i]]
        try:
            spec.step(event)
        except Refused as why:
            raise Refused(f"{why} [{event.side} event {at[i] + 1}: {event.name} "
                          f"{event.channel:#x} {event.a} {event.b:#x} {event.c}]") from None
        at[i] += 1
    if at != [len(sides[0]), len(sides[1])]:
        stuck = [s[a] for s, a in zip(sides, at) if a < len(s)]
        raise Refused(f"it waits for what never comes [{stuck[0]}]")
    spec.finish(ends)


def check(trace):
    for first in "SD":
        replay(trace, first)
