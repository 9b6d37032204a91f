//! The system calls an engine must not make, where Landlock does not see them.

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, Error, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition,
    SeccompFilter, SeccompRule, apply_filter,
};

use super::SandboxPlan;

/// Numbers that are the same on all architectures and newer than the `libc` crate's.
const SETXATTRAT: i64 = 463;
const REMOVEXATTRAT: i64 = 466;

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// One program for each error number.
pub(super) struct Filter {
    programs: Vec<BpfProgram>,
}

impl Filter {
    pub(super) fn build(plan: &SandboxPlan) -> Result<Self, Error> {
        let mut programs = vec![
            compile(sockets()?, libc::EACCES)?,
            // Programs that know io_uring do without it; its requests pass no filter.
            compile(
                BTreeMap::from([(libc::SYS_io_uring_setup, Vec::new())]),
                libc::ENOSYS,
            )?,
        ];
        if plan.keeps_permissions {
            // Landlock does not guard permissions. Claiming success keeps alive what copies
            // a file together with them.
            programs.push(compile(permissions(), 0)?);
            programs.push(compile(attributes(), libc::EPERM)?);
        }
        Ok(Self { programs })
    }

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

fn permissions() -> Rules {
    let mut calls = vec![libc::SYS_fchmodat, libc::SYS_fchmodat2, libc::SYS_fchownat];
    #[cfg(target_arch = "x86_64")]
    calls.extend([libc::SYS_chmod, libc::SYS_chown, libc::SYS_lchown]);
    calls.into_iter().map(|call| (call, Vec::new())).collect()
}

fn attributes() -> Rules {
    let calls = [
        libc::SYS_setxattr,
        libc::SYS_lsetxattr,
        libc::SYS_removexattr,
        libc::SYS_lremovexattr,
        SETXATTRAT,
        REMOVEXATTRAT,
    ];
    calls.into_iter().map(|call| (call, Vec::new())).collect()
}
