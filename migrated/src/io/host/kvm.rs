//! Whether a guest really runs on this host's KVM: a tiny guest tries it.
//!
//! ```text
//! boot sector ─► 32-bit mode ─► page tables ─► 64-bit mode ─► a million rounds of a loop ─► "done" to QEMU
//! ```
//!
//! There are hosts with a `/dev/kvm` behind which no processor stands: every instruction is carried out by software,
//! one by one. Boot sectors run there, and a Linux kernel seems to hang. Measured on one: this guest took 15 s on
//! such a KVM and 0.2 s under emulation; with a processor behind it, it takes a few hundredths. So it goes the way
//! that a kernel goes, works a little, and has two seconds for that.

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;
use tokio::time::timeout;

use crate::host::Kvm;

/// How long the tiny guest may take, with QEMU's own start.
const LIMIT: Duration = Duration::from_secs(2);
/// What QEMU ends with when the guest writes 0x10 to the port of `isa-debug-exit`: twice that and one.
const DONE: i32 = 0x21;

/// The guest, at 0x7c00. Interrupts stay off, for nobody takes any.
#[rustfmt::skip]
const CODE: [u8; 198] = [
    // 16 bit:                                cli; ds = es = 0; lgdt [gdtr]
    0xfa, 0x31, 0xc0, 0x8e, 0xd8, 0x8e, 0xc0, 0x66, 0x0f, 0x01, 0x16, 0xc0, 0x7c,
    //                                        cr0 |= 1; jump into segment 8, which has 32 bit
    0x0f, 0x20, 0xc0, 0x0c, 0x01, 0x0f, 0x22, 0xc0, 0xea, 0x1a, 0x7c, 0x08, 0x00,
    // 32 bit:                                ds = es = ss = 16
    0x66, 0xb8, 0x10, 0x00, 0x8e, 0xd8, 0x8e, 0xc0, 0x8e, 0xd0,
    //                                        clear 12 KiB at 0x1000
    0xbf, 0x00, 0x10, 0x00, 0x00, 0x31, 0xc0, 0xb9, 0x00, 0x0c, 0x00, 0x00, 0xfc, 0xf3, 0xab,
    //                                        page tables: 0x1000 -> 0x2000 -> 0x3000 -> one page of 2 MiB at 0
    0xc7, 0x05, 0x00, 0x10, 0x00, 0x00, 0x03, 0x20, 0x00, 0x00,
    0xc7, 0x05, 0x00, 0x20, 0x00, 0x00, 0x03, 0x30, 0x00, 0x00,
    0xc7, 0x05, 0x00, 0x30, 0x00, 0x00, 0x83, 0x00, 0x00, 0x00,
    //                                        cr3 = 0x1000; cr4 |= PAE
    0xb8, 0x00, 0x10, 0x00, 0x00, 0x0f, 0x22, 0xd8, 0x0f, 0x20, 0xe0, 0x83, 0xc8, 0x20, 0x0f, 0x22, 0xe0,
    //                                        EFER |= LME
    0xb9, 0x80, 0x00, 0x00, 0xc0, 0x0f, 0x32, 0x0d, 0x00, 0x01, 0x00, 0x00, 0x0f, 0x30,
    //                                        cr0 |= PG; jump into segment 24, which has 64 bit
    0x0f, 0x20, 0xc0, 0x0d, 0x00, 0x00, 0x00, 0x80, 0x0f, 0x22, 0xc0,
    0xea, 0x82, 0x7c, 0x00, 0x00, 0x18, 0x00,
    // 64 bit:                                1048576 times: add one to the word at 0x4000
    0xb9, 0x00, 0x00, 0x10, 0x00, 0xff, 0x04, 0x25, 0x00, 0x40, 0x00, 0x00, 0xff, 0xc9, 0x75, 0xf5,
    //                                        out 0xf4, 0x10; halt for ever
    0xb0, 0x10, 0xe6, 0xf4, 0xf4, 0xeb, 0xfd,
    // up to a multiple of 8
    0x0f, 0x1f, 0x80, 0x00, 0x00, 0x00, 0x00,
    // segments: none, 32-bit code, data, 64-bit code
    0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0xff, 0xff, 0x00, 0x00, 0x00, 0x9a, 0xcf, 0x00,
    0xff, 0xff, 0x00, 0x00, 0x00, 0x92, 0xcf, 0x00, 0xff, 0xff, 0x00, 0x00, 0x00, 0x9a, 0xaf, 0x00,
    // gdtr: their length less one, and where they are
    0x1f, 0x00, 0xa0, 0x7c, 0x00, 0x00,
];

/// Tries KVM.
pub async fn probe(qemu: &Path) -> Kvm {
    match fs::File::options().read(true).write(true).open("/dev/kvm") {
        Err(error) => Kvm::Absent(format!("cannot open /dev/kvm: {error}")),
        Ok(_) => match run(qemu, "kvm", LIMIT).await {
            Ok(()) => Kvm::Usable,
            Err(reason) => Kvm::Doubtful(reason),
        },
    }
}

/// Runs the tiny guest to its end: an error says why it did not come through.
pub async fn run(qemu: &Path, accelerator: &str, limit: Duration) -> Result<(), String> {
    let name = format!("migrated-probe-{}-{accelerator}", std::process::id());
    let disk = std::env::temp_dir().join(name);
    fs::write(&disk, sector()).map_err(|error| format!("cannot write {}: {error}", disk.display()))?;
    let mut command = Command::new(qemu);
    command.args(["-accel", accelerator, "-machine", "pc", "-cpu", "qemu64", "-m", "16"]);
    command.args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]);
    command.args(["-device", "isa-debug-exit,iobase=0xf4,iosize=1"]);
    command
        .arg("-drive")
        .arg(format!("format=raw,if=ide,file={}", disk.display().to_string().replace(',', ",,")));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    let status = match command.spawn() {
        Ok(mut child) => timeout(limit, child.wait()).await,
        Err(error) => Ok(Err(error)),
    };
    // Whatever is left of it lies where such things lie.
    let _ = fs::remove_file(&disk);
    match status {
        Ok(Ok(status)) if status.code() == Some(DONE) => Ok(()),
        Ok(Ok(status)) => Err(format!("a tiny guest ended with {status}")),
        Ok(Err(error)) => Err(format!("cannot start {}: {error}", qemu.display())),
        Err(_) => Err(format!("a tiny guest was not through after {} ms", limit.as_millis())),
    }
}

/// The boot sector: code, and the mark that makes a sector one.
fn sector() -> [u8; 512] {
    let mut sector = [0; 512];
    sector[..CODE.len()].copy_from_slice(&CODE);
    sector[510..].copy_from_slice(&[0x55, 0xaa]);
    sector
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use super::{run, sector};

    #[test]
    fn the_sector_is_one_that_a_pc_boots() {
        assert_eq!(sector()[510..], [0x55, 0xaa]);
    }

    #[tokio::test]
    async fn a_program_that_is_no_qemu_proves_nothing() {
        let said = run(Path::new("/bin/true"), "tcg", Duration::from_secs(60)).await;
        assert!(said.is_err_and(|reason| reason.contains("exit status: 0")));
        let said = run(Path::new("/no/such/program"), "none", Duration::from_secs(60)).await;
        assert!(said.is_err_and(|reason| reason.contains("cannot start")));
    }
}
