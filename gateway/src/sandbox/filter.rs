//! The system calls an engine must not make, where Landlock does not see them.

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, Error, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition,
    SeccompFilter, SeccompRule, apply_filter, sock_filter,
};

use super::SandboxPlan;

/// Numbers that are the same on all architectures and newer than the `libc` crate's.
const SETXATTRAT: i64 = 463;
const REMOVEXATTRAT: i64 = 466;

/// The bit that marks a call of the x32 interface, whose numbers no rule knows.
#[cfg(target_arch = "x86_64")]
const X32: u32 = 0x4000_0000;
/// `which` of `setpriority`: one process, or one thread of it.
const PRIO_PROCESS: u64 = 0;
/// `which` of `ioprio_set`: one process, or one thread of it.
const IOPRIO_WHO_PROCESS: u64 = 1;
/// The bit that lets the owner of a file read it.
const OWNER_READS: u64 = 0o400;

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// One program for each error number.
pub(super) struct Filter {
    programs: Vec<BpfProgram>,
}

impl Filter {
    pub(super) fn build(plan: &SandboxPlan) -> Result<Self, Error> {
        let mut programs = Vec::new();
        if plan.keeps_permissions {
            // Landlock does not guard permissions. Claiming success keeps alive what copies
            // a file together with them.
            programs.push(compile(permissions(), 0)?);
        }
        programs.extend([
            compile(sockets()?, libc::EACCES)?,
            compile(every(SHARED), libc::EACCES)?,
            compile(others(plan.keeps_permissions)?, libc::EPERM)?,
            // As on a file system without them; programs that copy files take that.
            compile(every(ATTRIBUTES), libc::EOPNOTSUPP)?,
            // Programs that know these do without them. Requests of io_uring pass no filter.
            compile(every(MISSING), libc::ENOSYS)?,
        ]);
        #[cfg(target_arch = "x86_64")]
        programs.push(without_x32());
        Ok(Self { programs })
    }

    /// The last program that refuses a call decides on its error number.
    pub(super) fn apply(&self) -> Result<(), Error> {
        self.programs
            .iter()
            .try_for_each(|program| apply_filter(program))
    }
}

fn compile(rules: Rules, error: i32) -> Result<BpfProgram, Error> {
    let architecture = std::env::consts::ARCH.try_into()?;
    let filter = SeccompFilter::new(
        rules,
        SeccompAction::Allow,
        SeccompAction::Errno(error.unsigned_abs()),
        architecture,
    )?;
    Ok(filter.try_into()?)
}

/// Answers every call of the x32 interface as a kernel without it does.
#[cfg(target_arch = "x86_64")]
fn without_x32() -> BpfProgram {
    const LOAD_NUMBER: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS, of the call's number at 0
    const JUMP_IF_SET: u16 = 0x45; // BPF_JMP | BPF_JSET | BPF_K
    const RETURN: u16 = 0x06; // BPF_RET | BPF_K
    let step = |code, jt, k| sock_filter { code, jt, jf: 0, k };
    let refuse = libc::SECCOMP_RET_ERRNO | libc::ENOSYS.unsigned_abs();
    vec![
        step(LOAD_NUMBER, 0, 0),
        step(JUMP_IF_SET, 1, X32),
        step(RETURN, 0, libc::SECCOMP_RET_ALLOW),
        step(RETURN, 0, refuse),
    ]
}

/// These calls, whatever their arguments.
fn every(calls: &[i64]) -> Rules {
    calls.iter().map(|call| (*call, Vec::new())).collect()
}

/// Memory, semaphores and messages that all programs of the account share by number or name.
/// PyTorch and Python use files in `/dev/shm` instead.
const SHARED: &[i64] = &[
    libc::SYS_shmget,
    libc::SYS_shmat,
    libc::SYS_shmctl,
    libc::SYS_semget,
    libc::SYS_semop,
    libc::SYS_semtimedop,
    libc::SYS_semctl,
    libc::SYS_msgget,
    libc::SYS_msgsnd,
    libc::SYS_msgrcv,
    libc::SYS_msgctl,
    libc::SYS_mq_open,
    libc::SYS_mq_unlink,
];

/// Calls that seem not to be there: io_uring, and the keys of the account.
const MISSING: &[i64] = &[
    libc::SYS_io_uring_setup,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
];

/// Calls that reach beyond the engine, to other processes or to files it may only read.
fn others(keeps_permissions: bool) -> Result<Rules, Error> {
    let only = |argument, width, operator, value| {
        SeccompRule::new(vec![SeccompCondition::new(
            argument, width, operator, value,
        )?])
    };
    let is_not = |argument, value| only(argument, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, value);
    // No engine could open such a file any more, the owner's included. Told so, as no program that
    // copies files asks for this.
    let takes_reading = |argument| {
        let mask = SeccompCmpOp::MaskedEq(OWNER_READS);
        only(argument, SeccompCmpArgLen::Dword, mask, 0)
    };
    let mut rules = BTreeMap::from([
        // A limit on the size of files or on processor time ends a process as a signal does. Zero
        // names the caller, and so do `setrlimit` and `getrlimit`.
        (libc::SYS_prlimit64, vec![is_not(0, 0)?]),
        // All processes of a group or of the account.
        (libc::SYS_setpriority, vec![is_not(0, PRIO_PROCESS)?]),
        (libc::SYS_ioprio_set, vec![is_not(0, IOPRIO_WHO_PROCESS)?]),
        (libc::SYS_fchmod, vec![takes_reading(1)?]),
    ]);
    if !keeps_permissions {
        rules.insert(libc::SYS_fchmodat, vec![takes_reading(2)?]);
        rules.insert(libc::SYS_fchmodat2, vec![takes_reading(2)?]);
        #[cfg(target_arch = "x86_64")]
        rules.insert(libc::SYS_chmod, vec![takes_reading(1)?]);
    }
    Ok(rules)
}

/// Sockets of kinds that Landlock cannot guard, and the one way to connect that it does not see.
fn sockets() -> Result<Rules, Error> {
    let value = |number: i32| u64::from(number.unsigned_abs());
    let is = |argument, number| {
        SeccompCondition::new(
            argument,
            SeccompCmpArgLen::Dword,
            SeccompCmpOp::Eq,
            value(number),
        )
    };
    let is_not = |argument, number| {
        SeccompCondition::new(
            argument,
            SeccompCmpArgLen::Dword,
            SeccompCmpOp::Ne,
            value(number),
        )
    };
    let has = |argument, flag| {
        let mask = SeccompCmpOp::MaskedEq(value(flag));
        SeccompCondition::new(argument, SeccompCmpArgLen::Dword, mask, value(flag))
    };
    let fast_open = |argument| -> Result<Vec<SeccompRule>, Error> {
        Ok(vec![SeccompRule::new(vec![has(
            argument,
            libc::MSG_FASTOPEN,
        )?])?])
    };
    let mut refused = vec![
        // Everything but the internet and the kernel's own news: above all the sockets of other
        // programs, such as the session bus, which starts programs on request.
        SeccompRule::new(vec![
            is_not(0, libc::AF_INET)?,
            is_not(0, libc::AF_INET6)?,
            is_not(0, libc::AF_NETLINK)?,
        ])?,
    ];
    for family in [libc::AF_INET, libc::AF_INET6] {
        // Multipath TCP and the like, whose ports are not checked.
        refused.push(SeccompRule::new(vec![
            is(0, family)?,
            is_not(2, 0)?,
            is_not(2, libc::IPPROTO_TCP)?,
            is_not(2, libc::IPPROTO_UDP)?,
            is_not(2, libc::IPPROTO_ICMP)?,
            is_not(2, libc::IPPROTO_ICMPV6)?,
        ])?);
    }
    Ok(BTreeMap::from([
        (libc::SYS_socket, refused),
        (libc::SYS_sendto, fast_open(3)?),
        (libc::SYS_sendmsg, fast_open(2)?),
        (libc::SYS_sendmmsg, fast_open(3)?),
    ]))
}

/// Permissions and owners, by path and of open files, which may be open for reading alone.
fn permissions() -> Rules {
    let mut calls = vec![
        libc::SYS_fchmod,
        libc::SYS_fchmodat,
        libc::SYS_fchmodat2,
        libc::SYS_fchownat,
        libc::SYS_fchown,
    ];
    #[cfg(target_arch = "x86_64")]
    calls.extend([libc::SYS_chmod, libc::SYS_chown, libc::SYS_lchown]);
    every(&calls)
}

/// Extended attributes, among which are lists of who may read a file.
const ATTRIBUTES: &[i64] = &[
    libc::SYS_setxattr,
    libc::SYS_lsetxattr,
    libc::SYS_fsetxattr,
    libc::SYS_removexattr,
    libc::SYS_lremovexattr,
    libc::SYS_fremovexattr,
    SETXATTRAT,
    REMOVEXATTRAT,
];
