/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * migration.pml -- one migration for SPIN: precopy in rounds, drain, seal, RUN, page faults
 * beside bulk, completion, and recovery from a lost link. README.md says what is left out, how
 * it is run and what is found.
 *
 * An atomic block is what one thread does without another being able to see half of it. Writes
 * and messages under way are in a channel, and leave it whenever the scheduler likes.
 *
 *   LOSSES=n        how often the link may be lost
 *   LYING_FABRIC    one write of precopy may straggle past its fence
 *   STRICT          with LYING_FABRIC: not even that write's page may be wrong
 *   NO_DRAIN_WAIT   broken: the source goes on without waiting for DRAINED
 *   NO_SEAL         broken: SEALED is answered, but no key is revoked
 *   EARLY_BITMAP    broken: in recovery the map is sent before older epochs are shut out
 */
#ifndef LOSSES
#define LOSSES 1
#endif
#define PAGES    2 /* the places that name each page or channel are written for two */
#define CHANNELS 2 /* multifd */
#define ROUNDS   2 /* at most, while the guest runs */
#define WRITES   2 /* at most, by the guest at the source */

/* Sets of pages and of channels are bit masks. */
#define ALL           3
#define has(set, i)   (((set) >> (i)) & 1)
#define add(set, i)   set = set | (1 << (i))
#define del(set, i)   set = set & ~(1 << (i))

inline one_of(set, i)
{
	if
	:: has(set, 0) -> i = 0
	:: has(set, 1) -> i = 1
	fi
}

mtype = {
	WRITE, FENCE, PAGE,    /* multifd: into guest memory, its end; into staging, for bulk */
	REQUEST, COMING,       /* preempt, and PAGE as the other answer */
	DRAINED, SEAL, SEALED, PAGE_MAP, ARMED, RUN, RUNNING, RESUME, COMPLETE, COMPLETED, /* main */
	UNDECIDED, ABORTED     /* outcomes, and COMPLETED */
};

/* What is on the way: kind, epoch of the sender, page or set or epoch, version or flag. */
chan multifd[CHANNELS] = [6] of { mtype, byte, byte, byte };
chan requests = [4] of { mtype, byte, byte, byte };
chan answers = [4] of { mtype, byte, byte, byte };
chan to_destination = [4] of { mtype, byte, byte, byte };
chan to_source = [4] of { mtype, byte, byte, byte };

/* The message in a thread's hands, put away before it lets go, so that no state differs by it. */
#define MESSAGE mtype m; byte e, a, v
#define put_away m = 0; e = 0; a = 0; v = 0

bool link_up = true;
mtype outcome = UNDECIDED;

/* The source's. */
bool source_runs = true, source_paused;
byte version[PAGES] = 1;
byte epoch = 1, source_opened = 1; /* messages of epochs before the latter are refused */
byte dirty = ALL;                  /* the dirty log */
byte work, unfenced = 0;           /* the round's: pages to send, channels to fence */
byte missing;                      /* postcopy: pages that were not sent */
bool serving, pushing;             /* postcopy: missing holds, so requests are answered; bulk */

/* The destination's. */
bool destination_runs, destination_paused;
byte placed[PAGES];                /* the version that is in memory */
byte destination_opened = 1;
byte fenced, fence_epoch, drained;
bool sealed, revoked;              /* what the protocol says; what the NIC knows */
bool armed;                        /* what is lacking was discarded, and touches of it trap */
byte lacking, installed;
byte faults, asked, unanswered;    /* trapped, not yet asked for; asked for; no answer yet */

byte trapped;                      /* pages that a vCPU has had to wait for */

bool failed, looked;               /* a write was refused: its channel is dead; the source saw if */
byte astray;                       /* the page whose write straggles and is not seen to */

#ifdef STRICT
#define right(p) (placed[p] == version[p])
#else
#define right(p) (placed[p] == version[p] || has(astray, p))
#endif

/* Into a lost link a message vanishes. Who sends it need not have noticed. */
inline send(q, kind, tag, arg, ver)
{
	if
	:: link_up -> q!kind,tag,arg,ver
	:: else
	fi
}

/* -- source ---------------------------------------------------------------------------- */

proctype source_guest()
{
	byte p;
end:	do
	:: atomic { source_runs && outcome == UNDECIDED && version[0] + version[1] < PAGES + WRITES ->
		one_of(ALL, p);
		version[p]++;
		add(dirty, p);
		p = 0 }
	od
}

/* The thread of a multifd channel: a round's writes and their fence, later its part of bulk. */
proctype sender(byte c)
{
	byte p;
end:	do
	:: atomic { has(unfenced, c) && work && nfull(multifd[c]) ->
		one_of(work, p);
		del(work, p);
		send(multifd[c], WRITE, epoch, p, version[p]);
		p = 0 }
	:: atomic { has(unfenced, c) && !work && nfull(multifd[c]) ->
		del(unfenced, c);
		send(multifd[c], FENCE, epoch, 0, 0) }
	:: atomic { /* bulk: page c by channel c, for nothing orders pages on one channel or on two */
		pushing && has(missing, c) && nfull(multifd[c]) ->
		del(missing, c);
		assert(has(lacking, c)); /* claim: nothing is sent that is there */
		send(multifd[c], PAGE, epoch, c, version[c]) }
	od
}

/* The thread of the preempt channel. Until the map is here it lets requests wait. */
proctype page_server()
{
	MESSAGE;
end:	do
	:: atomic { serving && nfull(answers) && nempty(requests) ->
		requests?m,e,a,v;
		if
		:: e < source_opened
		:: e >= source_opened && has(missing, a) ->
			del(missing, a);
			assert(has(lacking, a)); /* claim: nothing is sent that is there */
			send(answers, PAGE, epoch, a, version[a])
		:: e >= source_opened && !has(missing, a) ->
			send(answers, COMING, epoch, a, 0)
		fi;
		put_away }
	od
}

inline one_round()
{
	atomic { work = dirty; dirty = 0; unfenced = ALL };
	if
	:: !unfenced
	:: !link_up -> goto aborted
	fi;
#ifndef NO_DRAIN_WAIT
	if
	:: to_source?DRAINED,_,eval(epoch),_
	:: !link_up -> goto aborted
	fi;
#endif
	epoch++
}

proctype source()
{
	MESSAGE;
	byte rounds, last;

	do
	:: rounds < ROUNDS -> one_round(); rounds++
	:: rounds > 0 -> break
	od;
	source_runs = false;
	if
	:: one_round() /* all by precopy */
	:: true        /* postcopy: what is dirty stays behind */
	fi;
	last = epoch - 1;
	send(to_destination, SEAL, epoch, last, 0);
	if
	:: to_source??SEALED,_,_,_
	:: !link_up -> goto aborted
	fi;
	atomic { /* looks once at every channel */
		if
		:: failed -> goto aborted
		:: else -> looked = true
		fi;
		missing = dirty;
		serving = true;
		/* From here on only the last version counts: call it 1, in order to have fewer states. */
		placed[0] = (placed[0] == version[0]);
		placed[1] = (placed[1] == version[1]);
		version[0] = 1;
		version[1] = 1;
		rounds = 0
	};

	send(to_destination, PAGE_MAP, epoch, missing, 0);
	if
	:: to_source??ARMED,_,_,_
	:: !link_up -> goto aborted
	fi;

start:	/* From the attempt to send RUN on, the guest is not started here again by itself. */
	if
	:: send(to_destination, RUN, epoch, last, 0)
	:: !link_up -> goto aborted
	fi;
	do
	:: atomic { to_source?m,e,a,v ->
		if
		:: e < source_opened
		:: e >= source_opened && m == RUNNING -> pushing = true
		:: e >= source_opened && m == PAGE_MAP && v -> missing = a; serving = true; pushing = true
		:: e >= source_opened && m == PAGE_MAP && !v -> /* no older RUN can be obeyed any more */
			missing = a;
			serving = true;
			put_away;
			goto start
		:: e >= source_opened && m == COMPLETE -> put_away; goto completed
		:: e >= source_opened && m == DRAINED /* that NO_DRAIN_WAIT has not waited for */
		fi;
		put_away }
	:: atomic { !link_up -> serving = false; pushing = false; source_paused = true };
		atomic {
			link_up ->
			source_paused = false;
			epoch++;
			source_opened = epoch;
			do /* what is left on the old channels is refused */
			:: nempty(to_source) -> to_source?_,_,_,_
			:: nempty(requests) -> requests?_,_,_,_
			:: else -> break
			od
		};
		send(to_destination, RESUME, epoch, 0, 0)
	od;

completed:
	atomic {
		assert(right(0) && right(1)); /* claim: no page is stale at the end */
		outcome = COMPLETED
	};
	send(to_destination, COMPLETED, epoch, 0, 0);
	goto over;
aborted:
	atomic {
		assert(!destination_runs); /* claim: the guest never runs twice */
		source_runs = true;
		link_up = false; /* which tells the destination */
		outcome = ABORTED
	};
over:	skip
}

/* -- between them ------------------------------------------------------------------------ */

/* A write of precopy is at the destination's NIC. */
inline arrive(p, ver)
{
	if
	:: revoked && looked
	:: revoked && !looked -> failed = true; del(astray, p)
	:: !revoked ->
		assert(!destination_runs); /* claim: no write of precopy lands after RUN */
		placed[p] = ver
	fi
}

/* Writes land in any order, also after the session: only fences wait for them. */
proctype nic(byte c)
{
	MESSAGE;
end:	do
	:: atomic { multifd[c]??WRITE,e,0,v -> arrive(0, v); put_away }
	:: atomic { multifd[c]??WRITE,e,1,v -> arrive(1, v); put_away }
	od
}

#ifdef LYING_FABRIC
proctype liar()
{
	MESSAGE;
end:	if
	:: atomic { multifd[0]??WRITE,e,a,v -> add(astray, a) }
	:: atomic { multifd[1]??WRITE,e,a,v -> add(astray, a) }
	fi;
	atomic { true -> arrive(a, v) }
}
#endif

/* The link is lost some times. When both sides have noticed, the operator connects again. */
proctype link()
{
	byte losses;
end:	do
	:: atomic { link_up && losses < LOSSES && outcome == UNDECIDED -> losses++; link_up = false }
	:: atomic { !link_up && source_paused && destination_paused -> link_up = true }
	od
}

/* -- destination ------------------------------------------------------------------------- */

/* As UFFDIO_COPY: at once, and a page that is there already stays as it is. */
inline install(p, ver)
{
	if
	:: has(lacking, p) ->
		assert(!has(installed, p)); /* claim: no page is installed twice */
		add(installed, p);
		placed[p] = ver;
		del(lacking, p)
	:: else
	fi
}

/* The thread of a multifd channel. A fence waits for the writes before it: VIA_AFTER_WRITES. */
proctype receiver(byte c)
{
	MESSAGE;
end:	do
	:: atomic { multifd[c]?FENCE,e,a,v ->
		if
		:: e < destination_opened
		:: e >= destination_opened && has(fenced, c) -> link_up = false /* two: not ours */
		:: e >= destination_opened && !has(fenced, c) -> add(fenced, c); fence_epoch = e
		fi;
		put_away }
	:: atomic { multifd[c]?PAGE,e,a,v ->
		if
		:: e < destination_opened
		:: else -> install(a, v)
		fi;
		put_away }
	od
}

/* The thread of the preempt channel and of userfaultfd. */
proctype fault_thread()
{
	MESSAGE;
end:	do
	:: atomic { faults && nfull(requests) ->
		one_of(faults, a);
		del(faults, a);
		if
		:: has(asked, a)
		:: else ->
			add(asked, a);
			add(unanswered, a);
			send(requests, REQUEST, destination_opened, a, 0)
		fi;
		put_away }
	:: atomic { answers?m,e,a,v ->
		if
		:: e < destination_opened
		:: else ->
			assert(has(unanswered, a)); /* claim: a request is answered once */
			del(unanswered, a);
			if
			:: m == PAGE -> install(a, v)
			:: m == COMING
			fi
		fi;
		put_away }
	od
}

/* Touches one page of @pages. The loading of device state does that too, before RUN. */
proctype vcpu(byte pages)
{
	byte p;
end:	atomic {
		armed ->
		one_of(pages, p);
		if
		:: has(lacking, p) -> add(faults, p); add(trapped, p)
		:: else
		fi
	};
	if
	:: atomic { !has(lacking, p) -> assert(right(p)) } /* claim: no page is seen stale */
	:: outcome == ABORTED
	fi
}

inline shut_out_older()
{
	destination_opened = e;
	faults = faults | (asked & lacking);
	asked = 0;
	unanswered = 0
}

proctype destination()
{
	MESSAGE;
	bool told;

loop:	do
	:: atomic { fenced == ALL ->
		fenced = 0;
		drained = fence_epoch;
		send(to_source, DRAINED, destination_opened, drained, 0) }
	:: atomic { to_destination?m,e,a,v ->
		if
		:: m == RESUME && e > destination_opened -> goto resumed
		:: m != RESUME && (destination_paused || e < destination_opened)
		:: else ->
			if
			:: m == SEAL && a != drained -> link_up = false
			:: m == SEAL && a == drained ->
				sealed = true;
#ifndef NO_SEAL
				revoked = true;
#endif
				send(to_source, SEALED, destination_opened, a, 0)
			:: m == PAGE_MAP ->
				assert(sealed);
				lacking = a;
				armed = true;
				send(to_source, ARMED, destination_opened, 0, 0)
			:: m == RUN ->
				assert(sealed && armed && a == drained);
				assert(!source_runs); /* claim: the guest never runs twice */
				destination_runs = true;
				send(to_source, RUNNING, destination_opened, 0, 0)
			:: m == COMPLETED -> put_away; goto closed
			fi
		fi;
		put_away }
	:: atomic { destination_runs && !destination_paused && !lacking && !told ->
		told = true;
		send(to_source, COMPLETE, destination_opened, 0, 0) }
	:: atomic { !link_up && !destination_paused ->
		if
		:: armed -> destination_paused = true /* RUN may have been sent */
		:: else -> goto closed
		fi }
	:: destination_paused && outcome != UNDECIDED -> goto closed /* the operator has looked */
	od;

resumed:
#ifdef EARLY_BITMAP
	send(to_source, PAGE_MAP, e, lacking, destination_runs);
	atomic { shut_out_older() };
#else
	atomic {
		shut_out_older();
		do /* the receivers would refuse it all: fewer states */
		:: nempty(multifd[0]) -> multifd[0]?_,_,_,_
		:: nempty(multifd[1]) -> multifd[1]?_,_,_,_
		:: nempty(answers) -> answers?_,_,_,_
		:: else -> break
		od
	};
	send(to_source, PAGE_MAP, e, lacking, destination_runs);
#endif
	atomic { destination_paused = false; told = false; put_away };
	goto loop;

closed:	revoked = true
}

init {
	atomic {
		run sender(0); run nic(0); run receiver(0);
		run sender(1); run nic(1); run receiver(1);
		run source_guest(); run source(); run page_server();
		run destination(); run fault_thread();
		run vcpu(1); run vcpu(ALL); /* the pages are alike, so the first may have page 0 */
		run link()
#ifdef LYING_FABRIC
		; run liar()
#endif
	}
}

/* -- what must come about --------------------------------------------------------------- */

#define waits (has(lacking, 0) && has(trapped, 0))

ltl ends { <> (outcome != UNDECIDED) }
ltl answered { [] (waits -> <> (!waits || outcome == ABORTED)) }
