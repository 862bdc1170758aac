//! Whether the QEMU of a host has what a guest is made of: machine type, accelerator, CPU model and each of its flags.
//!
//! QEMU itself would say so only when the guest is started there, in its own words, and one flag at a time.

use std::collections::BTreeSet;

use super::{Facts, Refusal, Wanted};
use crate::qemu::Accelerator;

/// The flags that can be written behind a CPU model, by the names of [`flag_name`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    /// All that this QEMU knows, and other settings of a CPU; empty: it does not say.
    pub known: BTreeSet<String>,
    /// Of these, features that no CPU here has.
    pub lacking: BTreeSet<String>,
}

/// What a processor of 64 bits has, and one of 32 has not.
const LONG_MODE: &str = "lm";

/// A flag's name, however it is written: QEMU takes "sse4_1", "sse4-1" and "sse4.1" for one.
pub fn flag_name(flag: &str) -> String {
    flag.replace(['_', '.'], "-")
}

/// What QEMU here does not have for a guest.
pub(super) fn refusals(facts: &Facts, wanted: &Wanted<'_>) -> Vec<Refusal> {
    let guest = wanted.guest;
    if !wanted.architecture.is_empty() && wanted.architecture != facts.architecture {
        // Nothing of the rest could be the same.
        let (guest, here) = (wanted.architecture.to_owned(), facts.architecture.clone());
        return vec![Refusal::Architecture { guest, here }];
    }
    let mut refusals = Vec::new();
    if !facts.machines.contains(&guest.machine) {
        refusals.push(Refusal::Machine {
            machine: guest.machine.clone(),
            here: facts.qemu_version.clone(),
            there: wanted.qemu_version.into(),
        });
    }
    let accelerator = match facts.accelerator(guest.accel) {
        Ok(accelerator) => accelerator,
        Err(reason) => {
            refusals.push(Refusal::Accelerator { wanted: "kvm".into(), reason });
            return refusals;
        }
    };
    if !wanted.accel.is_empty() && wanted.accel != accelerator.name() {
        let reason =
            format!("here it would be {}, and a running guest cannot change that", accelerator.name());
        refusals.push(Refusal::Accelerator { wanted: wanted.accel.into(), reason });
        return refusals;
    }
    match facts.cpus.get(&accelerator).and_then(|models| models.get(model_of(&guest.cpu))) {
        None => refusals.push(Refusal::Cpu { model: model_of(&guest.cpu).into(), accelerator }),
        Some(missing) => refusals.extend(flags(facts, &guest.cpu, accelerator, missing)),
    }
    refusals
}

fn model_of(cpu: &str) -> &str {
    cpu.split(',').next().unwrap_or_default()
}

/// What of the model and of the flags behind it is not to be had; what the description switches off is not missed.
fn flags(facts: &Facts, cpu: &str, accelerator: Accelerator, missing: &[String]) -> Vec<Refusal> {
    let model = model_of(cpu).to_owned();
    let words = || cpu.split(',').skip(1);
    let off = |word: &str| word.strip_prefix('-').or(word.strip_suffix("=off")).map(flag_name);
    let on = |word: &str| word.strip_prefix('+').or(word.strip_suffix("=on")).map(flag_name);
    let is_off: BTreeSet<String> = words().filter_map(off).collect();
    let added: BTreeSet<String> = words().filter_map(on).filter(|flag| !is_off.contains(flag)).collect();
    let mut missing: Vec<String> =
        missing.iter().filter(|flag| !is_off.contains(&flag_name(flag))).cloned().collect();
    let named: BTreeSet<String> = missing.iter().map(|flag| flag_name(flag)).collect();
    let mut unknown = Vec::new();
    if let Some(flags) = facts.flags.get(&accelerator).filter(|flags| !flags.known.is_empty()) {
        missing.extend(
            added.iter().filter(|flag| flags.lacking.contains(*flag) && !named.contains(*flag)).cloned(),
        );
        unknown = added.iter().chain(&is_off).filter(|flag| !flags.known.contains(*flag)).cloned().collect();
    }
    let mut refusals = Vec::new();
    if let Some(at) = missing.iter().position(|flag| flag_name(flag) == LONG_MODE) {
        // What else has 64 bits is missing with it.
        missing.swap_remove(at);
        refusals.push(Refusal::LongMode { model: model.clone() });
    }
    if !missing.is_empty() {
        refusals.push(Refusal::CpuFlags { model, missing });
    }
    if !unknown.is_empty() {
        refusals.push(Refusal::CpuFlagsUnknown { unknown, here: facts.qemu_version.clone() });
    }
    refusals
}
