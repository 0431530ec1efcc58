//! Attempts 42 to 44: processes, memory and processor time.
//!
//! Each reports how much it reached; reaching what was asked for is the success. What is taken is
//! taken in a child that the OOM killer prefers, and counted in shared memory, so that the count
//! outlives it. Outside the walls every amount is cut to something that no machine notices.

mod memory;
mod processes;
mod processor;

use crate::filter::sched_fifo;
use crate::outcome::{At, Attempted, succeeded};
use crate::table::{Attempt, Control};
use memory::*;
use processes::{fork_bomb, orphans, thread_bomb};
use processor::{sched_attr, spin, spin_children, spin_sessions};

pub use memory::{Shared, children, hold};
pub use processor::{judge_cpu, spin_amounts};

const MIB: u64 = 1 << 20;

#[rustfmt::skip]
pub const TABLE: &[Attempt] = &[
    Attempt::new(42, "fork", "live children", Control::Run, &["count"], fork_bomb),
    Attempt::new(42, "threads", "live threads", Control::Run, &["count"], thread_bomb),
    Attempt::new(42, "orphans", "live orphans, each in a session of its own", Control::Run, &["count"], orphans),
    Attempt::new(42, "raise-nproc", "lift RLIMIT_NPROC", Control::None("needs CAP_SYS_RESOURCE, which this machine withholds from root too"), &[], |_| raise(libc::RLIMIT_NPROC as i32)),
    Attempt::new(43, "anon", "anonymous memory", Control::Run, &["bytes"], |x| hold(x, anon)),
    Attempt::new(43, "tmp", "files in /tmp", Control::Run, &["bytes"], |x| hold(x, |n, goal| files(n, goal, "/tmp"))),
    Attempt::new(43, "shm", "files in /dev/shm", Control::Run, &["bytes"], |x| hold(x, |n, goal| files(n, goal, "/dev/shm"))),
    Attempt::new(43, "memfd", "memfd pages", Control::Run, &["bytes"], |x| hold(x, memfd)),
    Attempt::new(43, "sysv", "System V shared memory", Control::Run, &["bytes"], |x| hold(x, sysv)),
    Attempt::new(43, "sysv-detached", "System V shared memory that nobody is attached to", Control::Run, &["bytes"], |x| hold(x, sysv_detached)),
    Attempt::new(43, "shared-dropped", "shared anonymous memory, taken out of the page tables again", Control::Run, &["bytes"], |x| hold(x, |n, goal| dropped(n, goal, -1))),
    Attempt::new(43, "zero-dropped", "the same by a shared mapping of /dev/zero", Control::Run, &["bytes"], zero_dropped),
    Attempt::new(43, "queues", "messages in System V queues", Control::Run, &["bytes"], |x| hold(x, queues)),
    Attempt::new(43, "pipes", "pipe buffers", Control::Run, &["bytes"], |x| hold(x, pipes)),
    Attempt::new(43, "sockets", "socket buffers", Control::Run, &["bytes"], |x| hold(x, sockets)),
    Attempt::new(43, "page-tables", "page tables", Control::Run, &["bytes"], |x| hold(x, page_tables)),
    Attempt::new(43, "many-children", "anonymous memory spread over 8 children", Control::Run, &["bytes"], |x| hold(x, spread)),
    Attempt::new(43, "many-sockets", "socket buffers of many children", Control::Run, &["bytes"], |x| hold(x, |n, goal| children(n, goal, 24, sockets))),
    Attempt::new(43, "many-pipes", "pipe buffers of many children", Control::Run, &["bytes"], |x| hold(x, |n, goal| children(n, goal, 24, pipes))),
    Attempt::new(43, "mlock", "locked memory", Control::Root, &["bytes"], |x| hold(x, locked)),
    Attempt::new(43, "raise-as", "lift RLIMIT_AS", Control::None("needs CAP_SYS_RESOURCE, which this machine withholds from root too"), &[], |_| raise(libc::RLIMIT_AS as i32)),
    Attempt::new(44, "spin", "processor time with `threads` threads", Control::Run, &["threads", "seconds", "max_cpus"], spin),
    Attempt::new(44, "spin-children", "processor time with `threads` children", Control::Run, &["threads", "seconds", "max_cpus"], spin_children),
    Attempt::new(44, "spin-unwaited", "processor time with children whose time is added to nobody's", Control::Run, &["threads", "seconds", "max_cpus"], crate::bombs::spin_unwaited),
    Attempt::new(44, "spin-sessions", "processor time with pairs that pass a byte, in sessions of their own", Control::Run, &["threads", "seconds", "max_cpus"], spin_sessions),
    Attempt::new(44, "fifo", "SCHED_FIFO", Control::Root, &[], |_| sched_fifo(0)),
    Attempt::new(44, "deadline", "SCHED_DEADLINE by sched_setattr", Control::Root, &[], |_| sched_attr(6)),
    Attempt::new(44, "rr-attr", "SCHED_RR by sched_setattr", Control::Root, &[], |_| sched_attr(2)),
    Attempt::new(44, "nice", "nice -20", Control::Root, &[], |_| sys!(libc::SYS_setpriority, 0, 0, -20).at("setpriority").map(|_| succeeded("nice is -20"))),
    Attempt::new(44, "ioprio", "real-time I/O priority", Control::Root, &[], |_| sys!(libc::SYS_ioprio_set, 1, 0, 1 << 13).at("ioprio_set").map(|_| succeeded("real-time I/O class"))),
    Attempt::new(44, "raise-cpu", "lift RLIMIT_CPU and RLIMIT_RTPRIO", Control::None("needs CAP_SYS_RESOURCE, which this machine withholds from root too"), &[], |_| raise(libc::RLIMIT_RTPRIO as i32)),
];

/// Lifts a hard limit by one, or from infinity shows that it never was limited.
pub fn raise(resource: i32) -> Attempted {
    let mut now = [0u64; 2];
    sys!(libc::SYS_prlimit64, 0, resource, 0, now.as_mut_ptr()).at("prlimit (read)")?;
    if now[1] == u64::MAX {
        return Ok(succeeded("it is not limited"));
    }
    let more = [now[1] + 1, now[1] + 1];
    sys!(libc::SYS_prlimit64, 0, resource, more.as_ptr(), 0).at("prlimit (raise)")?;
    Ok(succeeded(format!("raised from {} to {}", now[1], more[1])))
}
