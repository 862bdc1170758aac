//! A replica that says what no replica says.

use std::io::Write;
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use blockd::io::replica_source::read_frame;
use blockd::io::sidecar_file::SidecarFile;
use blockd::replica::wire::{EPOCH_MAX, FrameType, RefusalCode, Refused, frame};
use tests::lab::Lab;
use tests::require;
use tests::wait::{PATIENCE, wait_until};

use super::{DISK_ID, MIB};

/// Counting on from it begins again at nought, and each attempt makes the sidecar beside the guest's disk durable.
#[test]
fn a_number_of_a_session_from_which_nobody_counts_on_ends_the_dialling_and_is_not_taken_over() {
    let lab = require!(Lab::with(&[]));
    let image = lab.scratch.patterned("image", 4 * MIB, 71);
    let (path, dialled) = (lab.scratch.join("hostile"), Arc::new(AtomicU64::new(0)));
    let (listener, counted) = (UnixListener::bind(&path).unwrap(), dialled.clone());
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            counted.fetch_add(1, Ordering::Relaxed);
            let Ok(Ok((header, _))) = read_frame(&mut stream) else { continue };
            let refused =
                Refused { code: RefusalCode::StaleEpoch, detail: u64::MAX, text: "not newer".to_owned() };
            let _ = stream.write_all(&frame(FrameType::Refused, header.epoch, 0, &refused.encode()));
        }
    });
    let mut source = lab.serve("source", &image).flags(DISK_ID).start();
    source.ctl(&["record", "on"]);
    source.ctl(&["replicate", &path.to_string_lossy()]);
    let reason = || source.status()["replication"]["last_error"].as_str().unwrap_or_default().to_owned();
    wait_until(PATIENCE, "the source to give up", || reason().contains("no replica has ever had"));
    source.shut_down();
    assert_eq!(dialled.load(Ordering::Relaxed), 1);
    let kept = SidecarFile::peek(&image.with_file_name("image.blockd")).unwrap().unwrap();
    assert!((1..EPOCH_MAX).contains(&kept.replica_epoch), "{}", kept.replica_epoch);
}
