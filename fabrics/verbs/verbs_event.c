/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * verbs_event.c -- what befalls an endpoint beside completions: the connection ends, the device
 * or its port fails, the endpoint is aborted.
 *
 * All of it becomes an alarm, a bit that anybody may set and that the owner deals with
 * in its next poll. The events of a device come through one descriptor that all endpoints of the
 * rail sleep on; whichever owner is there first hands them out, the others go on.
 *
 * Must never block an owner, and never touch an endpoint that is being closed (events_lock).
 */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>

#include "fabrics/verbs/verbs.h"

void verbs_alarm(struct verbs_ep *ep, enum verbs_alarm alarm)
{
	atomic_fetch_or(&ep->alarms, alarm);
	eventfd_write(ep->wake_fd, 1);
}

/* -- of the device ------------------------------------------------------------------ */

static void alarm_one(struct verbs_fabric *fab, const void *who, enum verbs_alarm alarm)
{
	for (unsigned i = 0; i < VERBS_EPS_MAX; i++)
		if (fab->ep[i] && fab->ep[i] == who)
			verbs_alarm(fab->ep[i], alarm);
}

static void alarm_all(struct verbs_fabric *fab, const struct verbs_rail *rail,
		      enum verbs_alarm alarm)
{
	for (unsigned i = 0; i < VERBS_EPS_MAX; i++)
		if (fab->ep[i] && fab->ep[i]->rail == rail)
			verbs_alarm(fab->ep[i], alarm);
}

static void hand_out_one(struct verbs_fabric *fab, const struct verbs_rail *rail,
			 const struct ibv_async_event *e)
{
	switch (e->event_type) {
	case IBV_EVENT_QP_FATAL:
	case IBV_EVENT_QP_REQ_ERR:
		alarm_one(fab, e->element.qp->qp_context, VERBS_QP_FATAL);
		break;
	case IBV_EVENT_QP_ACCESS_ERR:
		alarm_one(fab, e->element.qp->qp_context, VERBS_ACCESS_ERR);
		break;
	case IBV_EVENT_CQ_ERR:
		alarm_one(fab, e->element.cq->cq_context, VERBS_CQ_ERR);
		break;
	case IBV_EVENT_PORT_ERR:
		if (e->element.port_num == (int)rail->port)
			alarm_all(fab, rail, VERBS_PORT_ERR);
		break;
	case IBV_EVENT_DEVICE_FATAL:
		alarm_all(fab, rail, VERBS_DEVICE_GONE);
		break;
	default: /* changes that a connection outlives, or that its queues tell of */
		break;
	}
}

static void hand_out(struct verbs_fabric *fab, const struct verbs_rail *rail)
{
	struct ibv_async_event e;

	if (pthread_mutex_trylock(&fab->events_lock))
		return; /* somebody is at it */
	while (!ibv_get_async_event(rail->ctx, &e)) {
		hand_out_one(fab, rail, &e);
		ibv_ack_async_event(&e);
	}
	pthread_mutex_unlock(&fab->events_lock);
}

/* -- of the connection -------------------------------------------------------------- */

static void take_cm_events(struct verbs_ep *ep)
{
	struct rdma_cm_event *e;

	while (!rdma_get_cm_event(ep->channel, &e)) {
		struct rdma_cm_id *stranger =
			e->event == RDMA_CM_EVENT_CONNECT_REQUEST ? e->id : NULL;

		switch (e->event) {
		case RDMA_CM_EVENT_DISCONNECTED:
		case RDMA_CM_EVENT_TIMEWAIT_EXIT:
		case RDMA_CM_EVENT_CONNECT_ERROR:
		case RDMA_CM_EVENT_UNREACHABLE:
		case RDMA_CM_EVENT_REJECTED:
			verbs_alarm(ep, VERBS_DISCONNECTED);
			break;
		case RDMA_CM_EVENT_DEVICE_REMOVAL:
			verbs_alarm(ep, VERBS_DEVICE_GONE);
			break;
		default:
			break;
		}
		rdma_ack_cm_event(e);
		if (stranger) /* came before the listener was closed; refuses it */
			rdma_destroy_id(stranger);
	}
}

static void take_comp_events(struct verbs_ep *ep)
{
	struct ibv_cq *cq;
	void *context;

	if (!ibv_get_cq_event(ep->comp, &cq, &context)) { /* one for each arming */
		ep->cq_events++;
		ep->armed = false;
	}
}

/* -- the owner's part --------------------------------------------------------------- */

void verbs_look(struct verbs_ep *ep)
{
	struct epoll_event event[VERBS_WATCHES];
	eventfd_t drop;
	int n = epoll_wait(ep->epoll_fd, event, VERBS_WATCHES, 0);

	ep->slept = false;
	ep->idle_polls = 0;
	for (int i = 0; i < n; i++)
		switch ((enum verbs_watch)event[i].data.u32) {
		case VERBS_WATCH_COMP:
			take_comp_events(ep);
			break;
		case VERBS_WATCH_CM:
			if (ep->connected) /* else ep_connect() takes them */
				take_cm_events(ep);
			break;
		case VERBS_WATCH_ASYNC:
			hand_out((struct verbs_fabric *)ep->base.fab, ep->rail);
			break;
		case VERBS_WATCH_WAKE:
			(void)eventfd_read(ep->wake_fd, &drop);
			break;
		case VERBS_WATCHES:
			break;
		}
}

void verbs_heed(struct verbs_ep *ep)
{
	/* What tells most comes first: a port that goes down ends connections as well. */
	static const enum verbs_alarm order[] = {
		VERBS_ABORTED,  VERBS_DEVICE_GONE, VERBS_PORT_ERR,    VERBS_CQ_ERR,
		VERBS_QP_FATAL, VERBS_ACCESS_ERR,  VERBS_DISCONNECTED};
	unsigned alarms = atomic_load(&ep->alarms);

	for (size_t i = 0; i < sizeof(order) / sizeof(order[0]) && !ep->reason; i++)
		if (alarms & order[i])
			verbs_die(ep, order[i] == VERBS_ABORTED ? -ECANCELED : -ECONNRESET,
				  "%s: %s", ep->rail->name, verbs_alarm_text(order[i]));
}

void verbs_die(struct verbs_ep *ep, int reason, const char *fmt, ...)
{
	struct ibv_qp_attr attr = {.qp_state = IBV_QPS_ERR};
	va_list ap;

	if (ep->reason)
		return;
	va_start(ap, fmt);
	vsnprintf(ep->base.why, sizeof(ep->base.why), fmt, ap);
	va_end(ap);
	if (ep->qp && ep->qp->state != IBV_QPS_RESET) /* from there it cannot, and need not */
		(void)ibv_modify_qp(ep->qp, &attr, IBV_QP_STATE);
	ep->reason = reason;
}
