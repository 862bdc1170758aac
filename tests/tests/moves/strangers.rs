//! Who may ask a host for something (S0-16), by its API and by the network: anybody else is refused and logged, and nothing
//! changes. And who may, is told which version answers (S0-10).

use std::fs;
use std::os::unix::fs::PermissionsExt;

use serde_json::Value;
use tests::hosts::Hosts;
use tests::require;
use tests::requires::program;
use tests::wait::{PATIENCE, wait_until};
use tests::wan::End;
use tests::world::Plan;

/// A user that is neither root nor the daemon's.
const NOBODY: [&str; 6] = ["--reuid", "65534", "--regid", "65534", "--clear-groups", "--"];

/// All that a request could change at a host.
fn all_of(hosts: &Hosts, end: End) -> (Vec<String>, Value, String) {
    let peers = fs::read_to_string(hosts.site(end).join("state/peers.toml")).expect("read a host's peers");
    (hosts.traces(end), hosts.ask(end, &["list"]), peers)
}

pub fn a_user_who_is_not_the_daemons_and_a_host_that_is_not_paired_are_refused_and_logged_and_change_nothing()
{
    require!(program("setpriv"));
    let hosts = require!(Hosts::new(Plan::default()));
    let site = hosts.site(End::SiteB);
    let before = all_of(&hosts, End::SiteB);

    // The API: the socket's mode is the first door.
    let socket = "/run/migrated/api.sock";
    assert_eq!(site.shell(&format!("stat -c %a:%u {socket}")).trim(), "600:0");
    let as_nobody = || {
        let program = hosts.program(End::SiteA).to_str().expect("a plain path");
        site.tool("setpriv").args(NOBODY).args([program, "--socket", socket])
    };
    let unpair = ["unpair", "site-a"];
    as_nobody().args(unpair).refused();
    // The second one is the kernel's word for who connects.
    site.shell(&format!("chmod 755 /run/migrated; chmod 666 {socket}"));
    for words in [&unpair[..], &["pair"], &["list"]] {
        let refused = as_nobody().args(words).refused();
        assert!(refused.contains("user 65534 may not control this daemon"), "{refused}");
    }
    let logged = hosts.log(End::SiteB);
    assert_eq!(logged.matches("turned a stranger away from the API").count(), 3, "{logged}");
    assert!(logged.contains("uid=65534"), "{logged}");

    // The network: a host that knows this one, and is not known here.
    let stranger = &hosts.world.client;
    for folder in ["state", "images", "boot"] {
        fs::create_dir_all(stranger.join(folder)).expect("make a folder of a host");
    }
    fs::set_permissions(stranger.join("state"), fs::Permissions::from_mode(0o700)).expect("close a folder");
    let known = hosts.site(End::SiteA).join("state/peers.toml");
    fs::copy(known, stranger.join("state/peers.toml")).expect("copy what a host knows of others");
    let config = "name = \"stranger\"\nlisten = \"127.0.0.1:7700\"\nstate_dir = \"/site/state\"\n\
                  images_dir = \"/site/images\"\nboot_dir = \"/site/boot\"\nruntime_dir = \"/run/migrated\"\n";
    fs::write(stranger.join("config.toml"), config).expect("write a configuration");
    let mut daemon =
        stranger.start(hosts.program(End::SiteA), ["daemon", "--config", "/site/config.toml"], "log");
    let ask = |words: &[&str]| {
        stranger.tool(hosts.program(End::SiteA)).args(["--socket", socket, "--json"]).args(words)
    };
    wait_until(PATIENCE, "a daemon to answer", || ask(&["list"]).output().status.success());
    let seen: Value = serde_json::from_str(&ask(&["hosts"]).run()).expect("it answers in JSON");
    assert_eq!((&seen[0]["name"], &seen[0]["reachable"]), (&"site-b".into(), &false.into()), "{seen}");
    assert!(seen[0]["trouble"].as_str().is_some_and(|why| why.contains("does not know stranger")), "{seen}");
    // A token that the host has never given.
    let token = hosts.ask(End::SiteB, &["pair"]);
    let token = token.as_str().expect("a token");
    let refused = ask(&["pair", &guess(token)]).refused();
    assert!(refused.contains("not known here"), "{refused}");
    // The refusal may be heard before it is logged.
    for line in ["does not know stranger", "not known here"] {
        wait_until(PATIENCE, line, || {
            hosts.log(End::SiteB).lines().any(|logged| logged.contains("refused") && logged.contains(line))
        });
    }
    daemon.terminate();
    assert_eq!(all_of(&hosts, End::SiteB), before);

    // A host that is paired is told what it asks.
    let seen = hosts.ask(End::SiteA, &["hosts"]);
    assert_eq!(
        (&seen[0]["reachable"], &seen[0]["version"]),
        (&true.into(), &env!("CARGO_PKG_VERSION").into())
    );
    assert!(seen[0]["rtt_us"].as_u64().is_some_and(|rtt_us| rtt_us > 0), "{seen}");
}

/// The same token with another secret.
fn guess(token: &str) -> String {
    let good = migrated::link::token::Token::parse(token).expect("the host's own token");
    migrated::link::token::Token { secret: [1; 16], ..good }.format()
}
