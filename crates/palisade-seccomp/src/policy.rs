//! A policy: ordered rules and a default. This is the meaning; the compiled program only has to
//! agree with it, and the tests hold it to that.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::action::{Action, MAX_ERRNO};
use crate::arch::{Arch, X32_SYSCALL_BIT};
use crate::condition::{ArgCondition, Op};
use crate::error::Error;
use crate::syscall::Syscall;

/// What the kernel shows a filter about one call (`struct seccomp_data`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SeccompData {
    /// The call number as the kernel passes it, an `int` read as unsigned.
    pub nr: u32,
    /// The `AUDIT_ARCH` value of the interface the call came through.
    pub arch: u32,
    /// Where in the program the call was made.
    pub instruction_pointer: u64,
    /// The argument registers, unused ones included.
    pub args: [u64; 6],
}

impl SeccompData {
    /// A call by name with these arguments, or `None` where `arch` has no such call.
    #[must_use]
    pub fn call(arch: Arch, name: &str, args: [u64; 6]) -> Option<SeccompData> {
        let nr = arch.number(name)?;
        Some(SeccompData { nr, arch: arch.audit_arch(), instruction_pointer: 0, args })
    }

    /// Whether the call came through the one interface that a filter for `arch` lets calls through.
    #[must_use]
    pub fn is_of(&self, arch: Arch) -> bool {
        self.arch == arch.audit_arch() && arch.killed_from().is_none_or(|first| self.nr < first)
    }

    /// The call in a word, for reports: `reboot`, `#4000` for a number in no table, and with the
    /// interface before it where that is not `arch`'s own: `x32:execve`, `i386:#11`, `aarch64:mount`.
    #[must_use]
    pub fn name(&self, arch: Arch) -> Cow<'static, str> {
        const I386: u32 = 0x4000_0003;
        let word = |of: Arch, nr: u32| match of.syscall_name(nr) {
            Some(name) => Cow::Borrowed(name),
            None => format!("#{}", nr.cast_signed()).into(),
        };
        match Arch::from_audit_arch(self.arch) {
            Some(of) if self.is_of(of) && of == arch => word(of, self.nr),
            Some(of) if self.is_of(of) => format!("{of}:{}", word(of, self.nr)).into(),
            // What a call skipped by a tracer looks like.
            Some(_) if self.nr == u32::MAX => "#-1".into(),
            // Below 512 the two interfaces share their numbers; from there on x32 has its own.
            Some(of) => match self.nr & !X32_SYSCALL_BIT {
                nr if nr < 512 => format!("x32:{}", word(of, nr)).into(),
                nr => format!("x32:#{nr}").into(),
            },
            None if self.arch == I386 => format!("i386:#{}", self.nr.cast_signed()).into(),
            None => format!("{:#x}:#{}", self.arch, self.nr.cast_signed()).into(),
        }
    }
}

/// One answer for one call: it applies when all conditions hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    pub(crate) conditions: Vec<ArgCondition>,
    pub(crate) action: Action,
}

impl Rule {
    /// All of these must hold; none means the rule always applies.
    #[must_use]
    pub fn conditions(&self) -> &[ArgCondition] {
        &self.conditions
    }

    /// The answer.
    #[must_use]
    pub const fn action(&self) -> Action {
        self.action
    }

    fn applies(&self, args: &[u64; 6]) -> bool {
        self.conditions.iter().all(|condition| condition.holds(args))
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, condition) in self.conditions.iter().enumerate() {
            write!(f, "{}{condition}", if n == 0 { "" } else { " and " })?;
        }
        write!(f, "{}{}", if self.conditions.is_empty() { "" } else { " -> " }, self.action)
    }
}

/// A named, versioned set of rules. For each call the first rule whose conditions hold answers;
/// where none does, the default answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    pub(crate) name: String,
    pub(crate) version: u32,
    /// Name and version of every policy in it.
    pub(crate) label: String,
    pub(crate) default: Action,
    /// The answer to calls through another interface, x32 included.
    pub(crate) foreign: Action,
    pub(crate) rules: BTreeMap<Syscall, Vec<Rule>>,
}

impl Policy {
    /// Starts a policy. `version` is raised by its author whenever an answer changes; it is
    /// written to the audit record beside the program's bytes.
    pub fn builder(name: &str, version: u32, default: Action) -> PolicyBuilder {
        let policy = Policy {
            name: name.to_owned(),
            version,
            label: format!("{name}/{version}"),
            default,
            foreign: Action::KillProcess,
            rules: BTreeMap::new(),
        };
        PolicyBuilder { outcome: check_action(default).map(|()| policy) }
    }

    /// The policy's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The policy's version, starting at 1.
    #[must_use]
    pub const fn version(&self) -> u32 {
        self.version
    }

    /// Name and version in one, `python/1`; of a merged policy both parts, `floor/1+python/1`.
    #[must_use]
    pub fn label(&self) -> &str {
        &self.label
    }

    /// The answer for calls that no rule matches, calls unknown to this crate included.
    #[must_use]
    pub const fn default_action(&self) -> Action {
        self.default
    }

    /// The answer to calls through another interface than the filter's own, x32 included:
    /// [`Action::KillProcess`], or [`Action::UserNotify`] where a listener is to kill instead
    /// ([`told`](crate::told), [`observed`](crate::observed)). Nothing else can be had.
    #[must_use]
    pub const fn foreign_action(&self) -> Action {
        self.foreign
    }

    /// The calls that have rules.
    pub fn syscalls(&self) -> impl Iterator<Item = Syscall> + '_ {
        self.rules.keys().copied()
    }

    /// The rules of one call in the order they are tried; empty where the default answers.
    #[must_use]
    pub fn rules(&self, syscall: Syscall) -> &[Rule] {
        self.rules.get(&syscall).map_or(&[], Vec::as_slice)
    }

    /// The answer to a call, straight from the rules. `arch` is the architecture the filter is for;
    /// calls through any other interface, and x32 calls, get [`Policy::foreign_action`].
    #[must_use]
    pub fn decide(&self, data: &SeccompData, arch: Arch) -> Action {
        if !data.is_of(arch) {
            return self.foreign;
        }
        self.matching_rule(data, arch).map_or(self.default, Rule::action)
    }

    /// The rule that answers a call of `arch`, or `None` where the default does. Used to say why.
    #[must_use]
    pub fn matching_rule(&self, data: &SeccompData, arch: Arch) -> Option<&Rule> {
        if !data.is_of(arch) {
            return None;
        }
        let syscall = Syscall::named(arch.syscall_name(data.nr)?).ok()?;
        self.rules(syscall).iter().find(|rule| rule.applies(&data.args))
    }
}

/// Collects rules; the first mistake is kept and returned by [`PolicyBuilder::build`].
#[derive(Debug, Clone)]
#[must_use]
pub struct PolicyBuilder {
    outcome: Result<Policy, Error>,
}

impl PolicyBuilder {
    /// Answers every one of these calls with `action`, whatever its arguments.
    pub fn on(self, action: Action, syscalls: &[&str]) -> PolicyBuilder {
        self.on_when(action, syscalls, &[])
    }

    /// Answers these calls with `action` when all conditions hold. An argument is named, so that
    /// one rule can cover calls that have it in different places; position and width come from the
    /// table of C types.
    pub fn on_when(
        self,
        action: Action,
        syscalls: &[&str],
        conditions: &[(&str, Op)],
    ) -> PolicyBuilder {
        let outcome = self.outcome.and_then(|mut policy| {
            add(&mut policy, action, syscalls, conditions)?;
            Ok(policy)
        });
        PolicyBuilder { outcome }
    }

    /// The finished policy.
    ///
    /// # Errors
    /// The first mistake made: an unknown call or argument, a constant that does not fit, a rule
    /// that can never match, an errno above 4095.
    pub fn build(self) -> Result<Policy, Error> {
        self.outcome
    }
}

fn add(
    policy: &mut Policy,
    action: Action,
    syscalls: &[&str],
    conditions: &[(&str, Op)],
) -> Result<(), Error> {
    check_action(action)?;
    if syscalls.is_empty() {
        return Err(Error::EmptyRule);
    }
    let distinct: BTreeSet<&str> = syscalls.iter().copied().collect();
    for name in distinct {
        let syscall = Syscall::named(name)?;
        let conditions = conditions
            .iter()
            .map(|(argument, op)| ArgCondition::new(syscall, argument, op.clone()))
            .collect::<Result<Vec<_>, _>>()?;
        let rules = policy.rules.entry(syscall).or_default();
        if rules.last().is_some_and(|last| last.conditions.is_empty()) {
            return Err(Error::UnreachableRule { syscall: syscall.name() });
        }
        rules.push(Rule { conditions, action });
    }
    Ok(())
}

fn check_action(action: Action) -> Result<(), Error> {
    match action {
        Action::Errno(number) if number > MAX_ERRNO => Err(Error::ErrnoTooLarge(number)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decide(policy: &Policy, name: &str, args: [u64; 6]) -> Action {
        let data = SeccompData::call(Arch::X86_64, name, args).expect("call exists");
        policy.decide(&data, Arch::X86_64)
    }

    #[test]
    fn first_matching_rule_answers() {
        let policy = Policy::builder("test", 1, Action::ENOSYS)
            .on_when(Action::Allow, &["kill"], &[("sig", Op::Eq(0))])
            .on_when(Action::EPERM, &["kill"], &[("pid", Op::Eq(1))])
            .on_when(Action::Allow, &["kill"], &[("sig", Op::Lt(10))])
            .build()
            .unwrap();
        assert_eq!(decide(&policy, "kill", [1, 0, 0, 0, 0, 0]), Action::Allow);
        assert_eq!(decide(&policy, "kill", [1, 9, 0, 0, 0, 0]), Action::EPERM);
        assert_eq!(decide(&policy, "kill", [2, 9, 0, 0, 0, 0]), Action::Allow);
        assert_eq!(decide(&policy, "kill", [2, 10, 0, 0, 0, 0]), Action::ENOSYS);
        assert_eq!(decide(&policy, "read", [0; 6]), Action::ENOSYS);
    }

    #[test]
    fn one_rule_finds_the_argument_in_each_calls_own_place() {
        let policy = Policy::builder("test", 1, Action::Allow)
            .on_when(Action::EPERM, &["chmod", "fchmodat"], &[("mode", Op::MaskedAny(0o6000))])
            .build()
            .unwrap();
        assert_eq!(decide(&policy, "chmod", [0, 0o4755, 0, 0, 0, 0]), Action::EPERM);
        assert_eq!(decide(&policy, "fchmodat", [0, 0, 0o4755, 0, 0, 0]), Action::EPERM);
        assert_eq!(decide(&policy, "fchmodat", [0, 0o4755, 0, 0, 0, 0]), Action::Allow);
    }

    #[test]
    fn other_interfaces_are_killed_even_by_an_allow_all_policy() {
        let policy = Policy::builder("open", 1, Action::Allow).build().unwrap();
        let x32 = SeccompData { nr: 0x4000_0000, arch: 0xC000_003E, ..SeccompData::default() };
        assert_eq!(policy.decide(&x32, Arch::X86_64), Action::KillProcess);
        let skipped = SeccompData { nr: u32::MAX, ..x32 };
        assert_eq!(policy.decide(&skipped, Arch::X86_64), Action::KillProcess);
        let i386 = SeccompData { nr: 1, arch: 0x4000_0003, ..SeccompData::default() };
        assert_eq!(policy.decide(&i386, Arch::X86_64), Action::KillProcess);
        let arm = SeccompData { nr: u32::MAX, arch: 0xC000_00B7, ..SeccompData::default() };
        assert_eq!(policy.decide(&arm, Arch::Aarch64), Action::Allow, "arm64 has no x32");
    }

    #[test]
    fn calls_have_a_name_whatever_way_they_came() {
        let name = |arch: u32, nr: u32| {
            let data = SeccompData { nr, arch, ..SeccompData::default() };
            data.name(Arch::X86_64).into_owned()
        };
        const X86_64: u32 = 0xC000_003E;
        assert_eq!(name(X86_64, 169), "reboot");
        assert_eq!(name(X86_64, 4000), "#4000");
        assert_eq!(name(X86_64, X32_SYSCALL_BIT | 169), "x32:reboot");
        assert_eq!(name(X86_64, X32_SYSCALL_BIT | 520), "x32:#520");
        assert_eq!(name(X86_64, u32::MAX), "#-1");
        assert_eq!(name(0x4000_0003, 88), "i386:#88");
        assert_eq!(name(0xC000_00B7, 142), "aarch64:reboot");
        assert_eq!(name(0xC000_00F3, 1), "0xc00000f3:#1");
        // No rule of another interface's call is taken for the deciding one.
        let policy = Policy::builder("t", 1, Action::Allow).on(Action::EPERM, &["reboot"]);
        let foreign = SeccompData { nr: 169, arch: 0x4000_0003, ..SeccompData::default() };
        assert_eq!(policy.build().unwrap().matching_rule(&foreign, Arch::X86_64), None);
    }

    #[test]
    fn mistakes_come_out_of_build() {
        let code = |builder: PolicyBuilder| builder.build().unwrap_err().code();
        let start = || Policy::builder("test", 1, Action::Allow);
        assert_eq!(code(start().on(Action::EPERM, &["raed"])), "PAL-SECCOMP-UNKNOWN-SYSCALL");
        assert_eq!(code(start().on(Action::EPERM, &[])), "PAL-SECCOMP-EMPTY-RULE");
        assert_eq!(code(start().on(Action::Errno(4096), &["read"])), "PAL-SECCOMP-ERRNO-TOO-LARGE");
        assert_eq!(
            code(start().on_when(Action::EPERM, &["read"], &[("fd", Op::Eq(0))])),
            "PAL-SECCOMP-UNKNOWN-ARGUMENT"
        );
        assert_eq!(
            code(start().on(Action::EPERM, &["read"]).on(Action::Allow, &["read"])),
            "PAL-SECCOMP-UNREACHABLE-RULE"
        );
        assert_eq!(
            code(Policy::builder("t", 1, Action::Errno(5000))),
            "PAL-SECCOMP-ERRNO-TOO-LARGE"
        );
    }
}
