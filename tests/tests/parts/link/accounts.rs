//! A paired host asks about migrations that are none of its business, over a link to a daemon's visit: nothing is done, and
//! nothing is written. What is its business, it gets.

use std::fs;
use std::sync::Arc;

use migrated::config::parse;
use migrated::io::destination;
use migrated::io::hold::HoldPoints;
use migrated::io::link::Link;
use migrated::io::peer_channel::{PeerClient, PeerError};
use migrated::io::site::Site;
use migrated::io::source::control;
use migrated::journal::{Step, Subject};
use migrated::peer::{Answer, Request};
use tests::scratch::Scratch;

use super::ends::{Pair, pair, soon};

/// A daemon's visit of the host "near", and what that host can say in it.
struct Visit {
    site: Arc<Site>,
    client: PeerClient,
    /// The link, and where the daemon's state lies.
    _kept: (Link, Scratch, Pair),
}

fn subject(migration: &str, peer: &str) -> Subject {
    let (migration, guest, peer) = (migration.to_owned(), "web".to_owned(), peer.to_owned());
    Subject { migration, guest, generation: 2, peer }
}

/// Of a daemon that has written this.
async fn visit(written: &[(&str, &str, Step)]) -> Visit {
    let scratch = Scratch::new();
    let inside = |name: &str| {
        let folder = scratch.join(name);
        fs::create_dir_all(&folder).expect("make a folder");
        folder
    };
    let text = format!(
        "name = \"far\"\nlisten = \"127.0.0.1:1\"\nstate_dir = {:?}\nruntime_dir = {:?}\nimages_dir = {:?}\nboot_dir = {:?}\n",
        inside("state"),
        inside("run"),
        inside("images"),
        inside("boot")
    );
    let config = parse(&text).expect("a configuration");
    let site = Arc::new(Site::open(config, HoldPoints::OFF).expect("open the state"));
    for (migration, peer, step) in written {
        site.journal.promise(subject(migration, peer), *step).expect("write a record");
    }
    let pair = pair().await;
    tokio::spawn(destination::serve(Arc::clone(&site), pair.far.clone()));
    let (client, _notices) = control(&pair.near).await.expect("a control channel");
    Visit { site, client, _kept: (pair.near.clone(), scratch, pair) }
}

impl Visit {
    async fn ask(&self, request: Request) -> Result<Answer, PeerError> {
        soon(self.client.call(request)).await
    }

    /// It is refused, and the journal stays as it was.
    async fn assert_refused(&self, request: Request) {
        let before = self.site.journal.records();
        let name = request.name();
        match self.ask(request).await {
            Err(PeerError::Refused(reasons)) => {
                assert!(reasons[0].contains("does not come from near"), "{name}: {reasons:?}");
            }
            other => panic!("{name}: {other:?}"),
        }
        assert_eq!(self.site.journal.records(), before, "{name}");
    }
}

fn about(migration: &str, guest: &str) -> [Request; 3] {
    let migration = || migration.to_owned();
    [
        Request::TakenBack { migration: migration(), guest: guest.to_owned(), generation: 9 },
        Request::Verdict { migration: migration(), generation: 2 },
        Request::Concluded { migration: migration() },
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_to_which_a_guest_was_to_go_has_no_say_about_it_at_its_source() {
    // It was sent to "near", which refused it: the guest runs here.
    let steps = [Step::Begun, Step::RollingBack, Step::RolledBack];
    let written = steps.map(|step| ("0e2f9a61", "near", step));
    let visit = visit(&written).await;
    for request in about("0e2f9a61", "web") {
        visit.assert_refused(request).await;
    }
    assert!(visit.site.journal.handed_over("web").is_none(), "the guest may be run here");
    let consult = Request::Consult { migration: "0e2f9a61".into() };
    let promised = Some(Step::RolledBack);
    assert!(matches!(visit.ask(consult).await, Ok(Answer::Consulted { promised: said }) if said == promised));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_has_no_say_about_the_guests_of_another() {
    let steps = [Step::Reserved, Step::Taken, Step::Started];
    let visit = visit(&steps.map(|step| ("0e2f9a62", "other", step))).await;
    for request in about("0e2f9a62", "web") {
        visit.assert_refused(request).await;
    }
    let consult = Request::Consult { migration: "0e2f9a62".into() };
    assert!(matches!(visit.ask(consult).await, Err(PeerError::Refused(_))), "nor does it learn of them");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_host_says_of_a_migration_that_nobody_knows_names_no_guest_here() {
    let visit = visit(&[("0e2f9a63", "near", Step::Releasing)]).await;
    let unknown = Request::TakenBack { migration: "ffffffff".into(), guest: "web".into(), generation: 9 };
    assert!(matches!(visit.ask(unknown).await, Ok(Answer::Done {})));
    let last = visit.site.journal.records().pop().expect("it is refused for good");
    assert_eq!((last.step, last.migration.as_str(), last.guest.as_str()), (Step::Refused, "ffffffff", ""));
    // The promise by which the guest may run elsewhere holds as before.
    let promised = visit.site.journal.handed_over("web").expect("it may be elsewhere");
    assert_eq!(promised.migration, "0e2f9a63");
}
