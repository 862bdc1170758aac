//! What a QEMU offers: version, machine types, CPU models and flags. Asked of a QEMU without a machine, and again when the
//! program is another one.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use tokio::sync::Mutex;
use tokio::time::timeout;

use super::HostError;
use super::program::FileNow;
use crate::host::{Flags, flag_name};
use crate::qemu::Accelerator;
use crate::qmp::{Message, command_line, parse_line, version_of};

/// How long QEMU may take to answer.
const LIMIT: Duration = Duration::from_secs(20);
/// What is asked, in this order.
const QUESTIONS: [&str; 6] = [
    "qmp_capabilities",
    "query-version",
    "query-machines",
    "query-cpu-definitions",
    "query-cpu-model-expansion",
    "quit",
];
/// Above the list of all features in what `-cpu help` prints.
const FEATURES: &str = "Recognized CPUID flags:";

/// What a QEMU offers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Offers {
    /// Its version.
    pub version: String,
    /// Its machine types, aliases too.
    pub machines: BTreeSet<String>,
    /// CPU models by accelerator, each with the flags that it would lack here.
    pub cpus: BTreeMap<Accelerator, BTreeMap<String, Vec<String>>>,
    /// What can be written behind a model, by accelerator.
    pub flags: BTreeMap<Accelerator, Flags>,
}

/// The answers of a program, and which file it was.
type Asked = HashMap<(PathBuf, bool), (FileNow, Offers)>;

static ASKED: Mutex<Option<Asked>> = Mutex::const_new(None);

/// What the program `qemu` offers, with KVM too if `kvm`. A program is asked once, and again when it is another file.
pub async fn ask(qemu: &Path, kvm: bool) -> Result<Offers, HostError> {
    let mut asked = ASKED.lock().await;
    let asked = asked.get_or_insert_default();
    let key = (qemu.to_owned(), kvm);
    // Looked at before it is asked: one that is replaced meanwhile is asked again.
    let now = FileNow::of_program(qemu);
    if let (Some(now), Some((file, offers))) = (&now, asked.get(&key))
        && file == now
    {
        return Ok(offers.clone());
    }
    let mut offers = Offers::default();
    let features = features(qemu).await;
    ask_one(qemu, Accelerator::Tcg, &features, &mut offers).await?;
    if kvm {
        ask_one(qemu, Accelerator::Kvm, &features, &mut offers).await?;
    }
    asked.extend(now.map(|now| (key, (now, offers.clone()))));
    Ok(offers)
}

/// The features of CPUs that this QEMU knows, as it prints them; none: it does not.
async fn features(qemu: &Path) -> BTreeSet<String> {
    let mut command = Command::new(qemu);
    command.args(["-machine", "none", "-cpu", "help"]).stdin(Stdio::null()).kill_on_drop(true);
    let output = timeout(LIMIT, command.output()).await;
    let text = output.ok().and_then(Result::ok).map(|output| output.stdout).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let (_, list) = text.split_once(FEATURES).unwrap_or_default();
    list.split_whitespace().map(flag_name).collect()
}

/// The question with this number and name, as a line.
fn question((id, name): (u64, &str)) -> String {
    let arguments = match name {
        // All that this host has, also what a guest could not take along.
        "query-cpu-model-expansion" => {
            json!({ "type": "full", "model": { "name": "max", "props": { "migratable": false } } })
        }
        _ => Value::Null,
    };
    command_line(id, name, &arguments)
}

async fn ask_one(
    qemu: &Path,
    accelerator: Accelerator,
    features: &BTreeSet<String>,
    offers: &mut Offers,
) -> Result<(), HostError> {
    let failed = |reason: String| HostError::Qemu(format!("cannot ask {}: {reason}", qemu.display()));
    let mut command = Command::new(qemu);
    command.args(["-machine", "none", "-accel", accelerator.name(), "-nodefaults", "-no-user-config"]);
    command.args(["-display", "none", "-qmp", "stdio"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
    let mut child = command.spawn().map_err(|error| failed(error.to_string()))?;
    let lines: String = (0..).zip(QUESTIONS).map(question).collect();
    let mut stdin = child.stdin.take().expect("it was asked for");
    // A few hundred bytes fit into any pipe.
    stdin.write_all(lines.as_bytes()).await.map_err(|error| failed(error.to_string()))?;
    let output = timeout(LIMIT, child.wait_with_output()).await;
    let output = output.map_err(|_| failed("it does not answer".into()))?;
    let output = output.map_err(|error| failed(error.to_string()))?;
    drop(stdin);
    let mut answers = BTreeMap::new();
    for line in output.stdout.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        if let Ok(Message::Reply(Some(id), Ok(answer))) = parse_line(line) {
            answers.insert(id as usize, answer);
        }
    }
    offers.flags.insert(accelerator, flags(features, answers.get(&4)));
    read(offers, accelerator, &answers).ok_or_else(|| failed(format!("it ended with {}", output.status)))
}

/// The flags of the CPU that has all that this host has. A QEMU that does not say them is not guessed at.
fn flags(features: &BTreeSet<String>, answer: Option<&Value>) -> Flags {
    let settings = answer.and_then(|answer| answer["model"]["props"].as_object()).into_iter().flatten();
    let mut flags = Flags::default();
    for (name, value) in settings {
        let name = flag_name(name);
        if value.as_bool() == Some(false) && features.contains(&name) {
            flags.lacking.insert(name.clone());
        }
        flags.known.insert(name);
    }
    flags
}

fn read(offers: &mut Offers, accelerator: Accelerator, answers: &BTreeMap<usize, Value>) -> Option<()> {
    offers.version = version_of(answers.get(&1)?).to_string();
    for machine in answers.get(&2)?.as_array()? {
        offers
            .machines
            .extend(["name", "alias"].iter().filter_map(|field| Some(machine[*field].as_str()?.into())));
    }
    let mut models = BTreeMap::new();
    for model in answers.get(&3)?.as_array()? {
        let missing = model["unavailable-features"].as_array().map(Vec::as_slice).unwrap_or_default();
        let mut missing: Vec<String> =
            missing.iter().filter_map(|flag| Some(flag.as_str()?.into())).collect();
        missing.sort();
        missing.dedup();
        models.insert(model["name"].as_str()?.to_owned(), missing);
    }
    offers.cpus.insert(accelerator, models);
    Some(())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::ask;

    #[tokio::test]
    async fn a_program_that_is_no_qemu_is_an_error() {
        let error = ask(Path::new("/bin/true"), false).await.unwrap_err();
        assert!(error.to_string().contains("/bin/true"), "{error}");
    }
}
