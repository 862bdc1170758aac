//! Who is welcomed, and who is refused.

use super::{Bench, EPOCH, SIZE, hello, identity};
use crate::replica::destination::{Identity, Op, SessionError};
use crate::replica::wire::{self, FrameType, Hello, RefusalCode, Refused, Welcome};

#[test]
fn a_source_is_welcomed_after_its_epoch_is_recorded() {
    for existing in [false, true] {
        let mut bench = Bench::new(Identity { existing, ..identity() });
        bench.hello(EPOCH, &hello()).unwrap();
        assert_eq!(bench.destination.poll_op(false), Some(Op::RecordEpoch(EPOCH)));
        assert_eq!(bench.answers(), []);
        assert!(!bench.destination.is_streaming());
        bench.destination.handle_done(Ok(vec![])).unwrap();
        let welcome = Welcome { version: wire::VERSION, existing, previous_epoch: EPOCH - 1 };
        assert_eq!(bench.answers(), [(FrameType::Welcome, 0, welcome.encode())]);
        assert!(bench.destination.is_streaming());
    }
}

fn refused(identity: Identity, epoch: u64, hello: &Hello) -> Refused {
    let mut bench = Bench::new(identity);
    let error = bench.hello(epoch, hello).unwrap_err();
    assert_eq!(bench.run(true), [], "nothing is touched");
    let answers = bench.answers();
    assert!(matches!(answers[..], [(FrameType::Refused, 0, _)]));
    let refused = Refused::decode(&answers[0].2).unwrap();
    assert_eq!(error, SessionError::Refused(refused.text.clone()));
    let again = bench.hello(epoch + 100, &self::hello());
    assert_eq!(again, Err(SessionError::Protocol("a frame came out of turn")));
    refused
}

#[test]
fn a_hello_is_refused_with_a_code_a_number_and_a_sentence() {
    let promoted = Identity { promoted: Some(4), ..identity() };
    let versions = |version_min, version_max| Hello { version_min, version_max, ..hello() };
    let cases = [
        (identity(), EPOCH, versions(2, 3), RefusalCode::Version, 1, "version 1 and the source 2 to 3"),
        (identity(), EPOCH, versions(0, 0), RefusalCode::Version, 1, "version 1 and the source 0 to 0"),
        (identity(), EPOCH, versions(2, 1), RefusalCode::Version, 1, "version 1 and the source 2 to 1"),
        (
            identity(),
            EPOCH,
            Hello { disk_id: "vm2-vda".into(), ..hello() },
            RefusalCode::WrongDisk,
            0,
            "disk \"vm1-vda\", not of \"vm2-vda\"",
        ),
        (
            identity(),
            EPOCH,
            Hello { size: 512, ..hello() },
            RefusalCode::WrongSize,
            SIZE,
            "source's disk 512",
        ),
        (promoted, EPOCH, hello(), RefusalCode::Promoted, 4, "promoted in generation 4"),
        (
            Identity { generation: 9, ..identity() },
            EPOCH,
            hello(),
            RefusalCode::StaleGeneration,
            9,
            "it moved since",
        ),
        (identity(), EPOCH - 1, hello(), RefusalCode::StaleEpoch, 4, "session 4 is not newer than session 4"),
        (identity(), 0, hello(), RefusalCode::StaleEpoch, 4, "session 0 is not newer than session 4"),
    ];
    for (identity, epoch, hello, code, detail, text) in cases {
        let refused = refused(identity, epoch, &hello);
        assert_eq!((refused.code, refused.detail), (code, detail));
        assert!(refused.text.contains(text), "{}", refused.text);
    }
}

#[test]
fn a_source_of_a_later_version_that_still_speaks_this_one_is_welcomed() {
    let mut bench = Bench::new(identity());
    bench.hello(EPOCH, &Hello { version_min: 1, version_max: 9, ..hello() }).unwrap();
    assert_eq!(bench.run(false), [Op::RecordEpoch(EPOCH)]);
}

#[test]
fn a_frame_of_another_epoch_is_refused() {
    for epoch in [EPOCH - 1, EPOCH + 1] {
        let mut bench = Bench::streaming(identity());
        let error = bench.feed(FrameType::Unseal, epoch, 0, &wire::encode_generation(1)).unwrap_err();
        assert_eq!(error, SessionError::Protocol("a frame carries another epoch"));
        assert!(bench.failure().contains("another epoch"));
        assert_eq!(bench.run(true), []);
    }
}
