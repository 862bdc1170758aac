//! What a QEMU offers: version, machine types, CPU models. Asked of a QEMU without a machine, once for each program.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use tokio::sync::Mutex;
use tokio::time::timeout;

use super::HostError;
use crate::qemu::Accelerator;
use crate::qmp::{Message, command_line, parse_line, version_of};

/// How long QEMU may take to answer.
const LIMIT: Duration = Duration::from_secs(20);
/// What is asked, in this order.
const QUESTIONS: [&str; 5] =
    ["qmp_capabilities", "query-version", "query-machines", "query-cpu-definitions", "quit"];

/// What a QEMU offers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Offers {
    /// Its version.
    pub version: String,
    /// Its machine types, aliases too.
    pub machines: BTreeSet<String>,
    /// CPU models by accelerator, each with the flags that it would lack here.
    pub cpus: BTreeMap<Accelerator, BTreeMap<String, Vec<String>>>,
}

static ASKED: Mutex<Option<HashMap<(PathBuf, bool), Offers>>> = Mutex::const_new(None);

/// What the program `qemu` offers, with KVM too if `kvm`. A program is asked once; a new version of it is seen by a
/// new daemon.
pub async fn ask(qemu: &Path, kvm: bool) -> Result<Offers, HostError> {
    let mut asked = ASKED.lock().await;
    let asked = asked.get_or_insert_default();
    let key = (qemu.to_owned(), kvm);
    if let Some(offers) = asked.get(&key) {
        return Ok(offers.clone());
    }
    let mut offers = Offers::default();
    ask_one(qemu, Accelerator::Tcg, &mut offers).await?;
    if kvm {
        ask_one(qemu, Accelerator::Kvm, &mut offers).await?;
    }
    asked.insert(key, offers.clone());
    Ok(offers)
}

async fn ask_one(qemu: &Path, accelerator: Accelerator, offers: &mut Offers) -> Result<(), HostError> {
    let failed = |reason: String| HostError::Qemu(format!("cannot ask {}: {reason}", qemu.display()));
    let mut command = Command::new(qemu);
    command.args(["-machine", "none", "-accel", accelerator.name(), "-nodefaults", "-no-user-config"]);
    command.args(["-display", "none", "-qmp", "stdio"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
    let mut child = command.spawn().map_err(|error| failed(error.to_string()))?;
    let lines: String =
        (0..).zip(QUESTIONS).map(|(id, question)| command_line(id, question, &Value::Null)).collect();
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
    read(offers, accelerator, &answers).ok_or_else(|| failed(format!("it ended with {}", output.status)))
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
