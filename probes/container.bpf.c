// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Containers are cgroups: enrolled here when they are made, by their name, before they have a task,
 * so that the default rules apply before user space wakes up. These tracepoints carry the struct
 * cgroup itself, so no decision is based on a path, and fire for v1 and v2 hierarchies alike.
 */
#include "include/vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include "include/enroll.h"
#include "include/match.h"
#include "include/syscalls.h"
#include "include/unarmed.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* Cgroups that were removed and are not released yet, with their containers. */
struct rf_removed {
	__u64 container;
	__u32 slot;
	__u32 pad;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, __u64);
	__type(value, struct rf_removed);
} removed SEC(".maps");

/* An event on a cgroup of a container other than its own; observed where `observe` says. */
static __always_inline void rf_cgroup_record(__u32 event, __u64 id, __u64 parent, __u64 owner,
					     __u32 slot, const char *path)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct rf_container *container = bpf_map_lookup_elem(&slots, &slot);
	struct rf_cgroup_event *record;
	__u32 route;
	long len;

	if (!container)
		return;
	route = rf_route(event, slot, container, RF_ACTION_NONE);
	if (route == RF_ROUTE_NONE)
		return;
	record = RF_RECORD(rf_cgroup_event, event, slot, route);
	if (!record)
		return;
	rf_header(&record->header, event, task, NULL);
	record->header.slot = slot;
	record->header.container = owner;
	record->cgroup = id;
	record->parent = parent;
	len = bpf_probe_read_kernel_str(record->path, sizeof(record->path), path);
	if (len > 0)
		record->path_len = len - 1;
	if (len == sizeof(record->path))
		record->header.flags |= RF_FLAG_TRUNCATED;
	rf_submit(record, event);
}

/*
 * Exempts the task that made this cgroup, if its name is a ticket. Its threads and children come
 * later. From here on nothing in its container becomes a subject: neither what it starts nor what
 * `kubectl exec` starts.
 */
static __always_inline void rf_exempt_ticket_holder(struct cgroup *cgroup,
						    struct rf_container *container)
{
	struct task_struct *task = bpf_get_current_task_btf();
	char ticket[RF_TICKET_LEN] = {};
	struct rf_armed *armed;
	__u32 tgid = task->tgid, never = RF_NEVER_SLOT;
	__u64 id;

	bpf_probe_read_kernel_str(ticket, sizeof(ticket), BPF_CORE_READ(cgroup, kn, name));
	if (bpf_map_delete_elem(&tickets, ticket))
		return;
	armed = rf_bound(task);
	if (!armed || armed->task.container != container->cgroup)
		return;
	armed->task.container = 0;
	bpf_map_delete_elem(&processes, &tgid);
	id = container->cgroup;
	bpf_map_update_elem(&containers, &id, &never, BPF_EXIST);
	__sync_fetch_and_add(&container->tasks, -1);
}

/*
 * The current task made this container. It is a runtime: its own mounts are not the container's.
 */
static __always_inline void rf_record_maker(__u32 slot)
{
	struct rf_container *container = bpf_map_lookup_elem(&slots, &slot);

	if (container)
		container->maker_mnt_ns = rf_mnt_ns(bpf_get_current_task_btf());
}

SEC("tp_btf/cgroup_mkdir")
int BPF_PROG(cgroup_mkdir, struct cgroup *cgroup, const char *path)
{
	struct rf_container *container;
	struct rf_armed *maker;
	__u64 at;
	__u32 slot;

	if (!rf_in_hierarchy(cgroup))
		return 0;
	at = rf_address(cgroup);
	slot = rf_slot_of(at);
	if (slot == RF_NO_SLOT ||
	    (slot == RF_NEVER_SLOT && rf_is_agent(bpf_get_current_task_btf()))) {
		/*
		 * A container that can write the host's cgroups makes no containers outside of its
		 * own.
		 */
		maker = rf_bound(bpf_get_current_task_btf());
		if (maker && maker->task.container)
			slot = maker->task.slot;
		else if (rf_is_container_name(at))
			rf_record_maker(rf_enroll(at, rf_address(path)));
	}
	/* Every cgroup below a container belongs to it, whatever its name. */
	container = bpf_map_lookup_elem(&slots, &slot);
	if (!container || !rf_is_slot(slot))
		return 0;
	rf_exempt_ticket_holder(cgroup, container);
	rf_cgroup_record(RF_CGROUP_MKDIR, BPF_CORE_READ(cgroup, kn, id), rf_parent_id(at),
			 container->cgroup, slot, path);
	return 0;
}

SEC("tp_btf/cgroup_rmdir")
int BPF_PROG(cgroup_rmdir, struct cgroup *cgroup, const char *path)
{
	struct rf_container *container;
	struct rf_removed gone = {};
	__u64 id, parent, at;
	__u32 slot;

	if (!rf_in_hierarchy(cgroup))
		return 0;
	id = BPF_CORE_READ(cgroup, kn, id);
	at = rf_address(cgroup);
	slot = rf_slot_of(at);
	if (slot == RF_NEVER_SLOT)
		bpf_map_delete_elem(&containers, &id);
	container = bpf_map_lookup_elem(&slots, &slot);
	if (!container || !rf_is_slot(slot))
		return 0;
	parent = rf_parent_id(at);
	gone.container = container->cgroup;
	gone.slot = slot;
	bpf_map_update_elem(&removed, &id, &gone, BPF_ANY);
	if (container->cgroup != id) {
		rf_cgroup_record(RF_CGROUP_RMDIR, id, parent, container->cgroup, slot, path);
		return 0;
	}
	/* Tasks that were moved out stay bound: the slot is free when none is left. */
	__sync_fetch_and_or(&container->state, RF_STATE_REMOVED);
	rf_container_record(RF_CONTAINER_REMOVE, id, parent, slot, rf_address(path));
	rf_recycle(slot);
	return 0;
}

/*
 * The memory of a removed cgroup is gone. This may be long after the removal, while the page cache
 * or a descriptor held it.
 */
SEC("tp_btf/cgroup_release")
int BPF_PROG(cgroup_release, struct cgroup *cgroup, const char *path)
{
	struct rf_removed *gone;
	__u64 id;

	if (!rf_in_hierarchy(cgroup))
		return 0;
	id = BPF_CORE_READ(cgroup, kn, id);
	gone = bpf_map_lookup_elem(&removed, &id);
	if (!gone)
		return 0;
	rf_cgroup_record(RF_CGROUP_RELEASE, id, 0, gone->container, gone->slot, path);
	bpf_map_delete_elem(&removed, &id);
	return 0;
}

/* The relation of the task that moves another one to the moved task. */
static __always_inline __u32 rf_mover_relation(const struct rf_task *moved,
					       struct task_struct *task)
{
	struct task_struct *current = bpf_get_current_task_btf();
	struct rf_armed *mover;

	if (current->tgid == task->tgid)
		return RF_RELATION_SELF;
	mover = rf_bound(current);
	if (!mover)
		return RF_RELATION_HOST;
	return mover->task.container == moved->container ? RF_RELATION_CONTAINER
							 : RF_RELATION_OTHER;
}

SEC("tp_btf/cgroup_attach_task")
int BPF_PROG(cgroup_attach_task, struct cgroup *to, const char *path, struct task_struct *task)
{
	struct rf_container *container;
	struct rf_cgroup_event *record;
	struct rf_query query;
	struct rf_armed *armed;
	__u32 route;
	__u8 flags = 0;
	long len;

	armed = rf_bound(task);
	if (!armed) {
		rf_note_entrant(to);
		return 0;
	}
	container = rf_container_of(&armed->task);
	if (!container || !rf_leaves_container(to, &armed->task))
		return 0;
	rf_query_init(&query, RF_CGROUP_ATTACH, &armed->task, container);
	query.value[0] = rf_mover_relation(&armed->task, task);
	rf_evaluate(&query, task, &armed->task, NULL);
	/* The signal goes to the caller: it must be the moved task, or one of its container. */
	if (query.value[0] == RF_RELATION_SELF || query.value[0] == RF_RELATION_CONTAINER)
		flags = rf_enforce(&query);
	else if (query.action > RF_ACTION_ALERT)
		flags = RF_FLAG_SIGNAL_FAILED;
	rf_count_verdict(&query);
	route = rf_route_verdict(&query, container);
	if (route == RF_ROUTE_NONE)
		return 0;
	record = RF_RECORD(rf_cgroup_event, RF_CGROUP_ATTACH, armed->task.slot, route);
	if (!record)
		return 0;
	rf_header(&record->header, RF_CGROUP_ATTACH, task, &armed->task);
	rf_header_verdict(&record->header, &query, task, &armed->task);
	record->header.flags = flags;
	record->cgroup = BPF_CORE_READ(to, kn, id);
	record->parent = rf_parent_id(rf_address(to));
	len = bpf_probe_read_kernel_str(record->path, sizeof(record->path), path);
	if (len > 0)
		record->path_len = len - 1;
	if (len == sizeof(record->path))
		record->header.flags |= RF_FLAG_TRUNCATED;
	rf_submit(record, RF_CGROUP_ATTACH);
	return 0;
}
