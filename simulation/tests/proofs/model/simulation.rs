//! Whole migrations with time in them, each from a seed: the product's `Source` decides at the source.
//!
//! ```text
//!  Source ───── start(op) ──► operations that take a while ─┐
//!      ▲ finished, failed, lost, verdict, time              │ queue of what happens when
//!      └────────────────────────────────────────────────────┤
//!  destination, journals, disks, machines: as in the model ◄┘
//! ```
//!
//! Links keep order and are cut at any time; the two ends notice at different times, up to three seconds later. Daemons,
//! QEMUs and hosts die and come back. Every choice comes from the seed.
//!
//! The oracle: never two that run the guest or can write its disk, no acknowledged write lost, no pause longer than its
//! deadline before *releasing*, a guest that goes on at its source runs there within a second of that decision, a cancel ends
//! within two, and at the end the guest runs at one side and nothing is open.

use std::collections::BTreeMap;
use std::time::Duration;

use migrated::phase::{Outcome, Phase};
use migrated::source::{Event, Limits, Notice, Source};
use simulation::rng::Rng;

use super::happening::Happening;
use super::rules::Rules;
use super::state::{Doing, Machine, State};
use super::wire::{Said, Word};
use super::world::{Bounds, Side, World};

/// What bounds the migrations here.
pub const LIMITS: Limits = Limits { paused: Duration::from_secs(20), retry: Duration::from_secs(120) };

/// After this nothing goes wrong any more.
const QUIET: Duration = Duration::from_secs(90);

/// By then everything is over.
const END: Duration = Duration::from_secs(3600);

/// What became of a seed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Migrations that ended at the destination.
    pub moved: u64,
    /// Migrations that ended at the source.
    pub back: u64,
    /// Attempts after the first.
    pub again: u64,
    /// Times that nobody knew.
    pub in_doubt: u64,
    /// Guests handed back.
    pub handed_back: u64,
    /// Cuts and deaths.
    pub faults: u64,
    /// Cancels that were accepted.
    pub cancelled: u64,
    /// Cancels that led elsewhere than to an end.
    pub misled: u64,
}

/// One world in time.
pub struct Simulation {
    /// The seed's choices.
    pub rng: Rng,
    /// Since the beginning.
    pub now: Duration,
    /// Both sides.
    pub state: State,
    /// The source's decisions, while there is a migration and a daemon.
    pub migration: Option<Source>,
    /// Which operations are heard.
    pub turn: u32,
    /// The migration's number has been begun before: a link is tried for until it is there.
    pub has_begun: bool,
    /// What the destination said by the newest link: loaded, running.
    pub heard: (bool, bool),
    /// Links up to this one are dead.
    pub dead: u8,
    /// What had come by them when they died, and was not read yet, is read later all the same.
    pub lingers: bool,
    /// The way between the sites is there.
    pub way: bool,
    /// When the guest was paused, or its source's daemon came back if that was later.
    pub paused_at: Option<Duration>,
    /// Since when the source has decided that a guest that stands still goes on there (S2-47).
    pub goes_on_since: Option<Duration>,
    /// Since when a cancel that was accepted is carried out (S2-23).
    pub cancelled_at: Option<Duration>,
    /// What was seen.
    pub seen: Seen,
    /// What happened.
    pub log: Vec<String>,
    /// Which rules are kept.
    pub rules: Rules,
    queue: BTreeMap<(Duration, u64), Happening>,
    queued: u64,
    /// When the last word each way arrives: a link keeps order.
    pub last_word: [Duration; 2],
    steps_queued: bool,
    /// What is still to go wrong in a handover.
    pub troubles: u64,
}

/// Runs a seed to its end. The error says what went wrong, and what happened before.
pub fn run(seed: u64, rules: Rules) -> Result<Seen, String> {
    let mut simulation = Simulation::new(seed, rules);
    simulation.run().map_err(|wrong| format!("{wrong}\n{}", simulation.log.join("\n")))?;
    Ok(simulation.seen)
}

impl Simulation {
    fn new(seed: u64, rules: Rules) -> Self {
        let bounds = Bounds { migrations: 3, links: 0, faults: u8::MAX, writes: 0 };
        let state = World { rules, bounds, operator: false }.beginning();
        let mut simulation = Self {
            rng: Rng::new(seed),
            now: Duration::ZERO,
            state,
            migration: None,
            turn: 0,
            has_begun: false,
            heard: (false, false),
            dead: 0,
            lingers: false,
            way: true,
            paused_at: None,
            goes_on_since: None,
            cancelled_at: None,
            seen: Seen::default(),
            log: Vec::new(),
            rules,
            queue: BTreeMap::new(),
            queued: 0,
            last_word: [Duration::ZERO; 2],
            steps_queued: false,
            troubles: 0,
        };
        simulation.plan();
        simulation
    }

    /// Has something happen later.
    pub fn after(&mut self, ms: u64, happening: Happening) {
        self.at(self.now + Duration::from_millis(ms), happening);
    }

    fn at(&mut self, at: Duration, happening: Happening) {
        self.queued += 1;
        self.queue.insert((at, self.queued), happening);
    }

    /// A time of the seed's choice, mostly short.
    pub fn a_while(&mut self, most_ms: u64) -> u64 {
        let most_ms = if self.rng.chance(80) { 1 + most_ms / 10 } else { 1 + most_ms };
        self.rng.below(most_ms)
    }

    fn run(&mut self) -> Result<(), String> {
        while self.now < END {
            if !self.next() {
                break;
            }
            self.deliver_words();
            self.see_to_steps();
            self.judge()?;
        }
        let rests = self.state.is_at_rest_on(Side::Source) || self.state.is_at_rest_on(Side::Destination);
        if !rests || self.migration.is_some() {
            return Err(format!("not at rest: {:?} {:#?}", self.migration, self.state));
        }
        self.seen.handed_back = u64::from(self.state.has_handed_back());
        Ok(())
    }

    /// Lets the next thing happen. False: nothing will.
    fn next(&mut self) -> bool {
        let first = self.queue.first_key_value().map(|((at, _), _)| *at);
        let timeout = self.migration.as_ref().and_then(Source::poll_timeout);
        match (first, timeout) {
            (None, None) => return false,
            (first, Some(timeout)) if first.is_none_or(|first| timeout <= first) => {
                self.now = self.now.max(timeout);
                self.note("a deadline".to_owned());
                let now = self.now;
                self.migration.as_mut().expect("it has a timeout").handle_timeout(now);
                self.act();
            }
            _ => {
                let ((at, _), happening) = self.queue.pop_first().expect("it is not empty");
                self.now = self.now.max(at);
                self.happen(happening);
            }
        }
        true
    }

    /// Writes down what happened, for whoever reads a failure.
    pub fn note(&mut self, what: String) {
        self.log.push(format!("{:>8} ms  {what}", self.now.as_millis()));
    }

    fn happen(&mut self, happening: Happening) {
        if happening != Happening::Write {
            self.note(format!("{happening:?}"));
        }
        match happening {
            Happening::Goes(turn, op, stretch) if turn == self.turn => self.go_on(op, stretch),
            Happening::NearlyDone(turn) if turn == self.turn => self.tell(Event::DisksNearlyDone),
            Happening::Goes(..) | Happening::NearlyDone(_) => {}
            Happening::Moved(link, version) => {
                let comes_by = self.state.arrival_by_the_link().filter(|_| link > self.dead);
                if comes_by.is_some() && self.state.destination.machine == Machine::Incoming {
                    self.state.destination.machine = Machine::Paused(version);
                    self.after(1, Happening::Loaded(link));
                }
            }
            Happening::Loaded(link) => {
                let arrival = self.state.arrival();
                if arrival.is_some_and(|arrival| arrival.link == link) && self.state.destination.daemon {
                    self.state.destination_has_loaded(&self.rules);
                }
            }
            Happening::Fails(link) => {
                if self.state.source.linked && self.state.links == link && link > self.dead {
                    self.tell(Event::Notice(Notice::PeerFailed("it has failed there".into())));
                }
            }
            Happening::Arrives(said) => self.arrive(said),
            Happening::Notices(Side::Source, link) => {
                if self.state.source.linked && self.state.links == link {
                    self.lose_link();
                }
            }
            Happening::Notices(Side::Destination, link) => {
                if self.state.destination.daemon {
                    self.state.destination_loses_links(link, &self.rules);
                }
            }
            Happening::Step => {
                self.steps_queued = false;
                self.step();
            }
            Happening::Answered => {
                if self.way && self.state.source.daemon.is_some() {
                    self.state.destination.may_start = self.state.has_lost_its_guest();
                }
            }
            Happening::Write => self.write(),
            Happening::Send => self.send(),
            Happening::Cancel => self.cancel(),
            Happening::Cut(ms) => self.cut(ms),
            Happening::Mended => self.way = true,
            Happening::Dies(side, part, ms) => self.die(side, part, ms),
            Happening::Restarts(side) => self.restart(side),
        }
    }

    fn write(&mut self) {
        if let [side] = self.state.running()[..]
            && self.state.latest < 250
        {
            self.state.write(side);
        }
        if self.now < QUIET {
            let pause = 300 + self.rng.below(200);
            self.after(pause, Happening::Write);
        }
    }

    fn send(&mut self) {
        let source = &self.state.source;
        let is_free = matches!(source.machine, Machine::Running(_)) && source.disk.is_writable();
        if is_free && self.migration.is_none() && source.daemon.is_some() && source.number < 3 {
            self.state.number();
            self.has_begun = false;
            self.migration = Some(Source::new(LIMITS, self.now));
            self.act();
        }
    }

    /// Words that were just said set out.
    fn deliver_words(&mut self) {
        let said: Vec<Said> = self.state.wire.all().collect();
        for said in said {
            self.state.wire.forget(said);
            // What is said to a dead link goes nowhere.
            if said.link > self.dead {
                let way = usize::from(said.word.is_for_destination());
                let delay = 10 + self.a_while(2500);
                let at = self.last_word[way].max(self.now + Duration::from_millis(delay));
                self.last_word[way] = at;
                self.at(at, Happening::Arrives(said));
            }
        }
    }

    fn arrive(&mut self, said: Said) {
        if said.link <= self.dead && !self.lingers {
            return;
        }
        if !said.word.is_for_destination() {
            self.hear(said);
        } else if self.state.destination.daemon && said.link > self.state.destination.ended {
            self.state.destination_hears(said, &self.rules);
        }
    }

    /// Whoever has something to do by itself does it soon.
    fn see_to_steps(&mut self) {
        let state = &self.state;
        let lost = state.has_lost_its_guest() || state.source_may_start();
        if !self.steps_queued && (state.destination_has_a_step() || lost) {
            self.steps_queued = true;
            let later = 1 + self.a_while(500);
            self.after(later, Happening::Step);
        }
    }

    fn step(&mut self) {
        if self.state.destination_has_a_step() {
            self.state.destination_step(&self.rules);
        } else if self.state.destination_may_start(&self.rules) {
            self.state.start_from_disk(Side::Destination);
        } else if self.state.has_lost_its_guest() {
            self.after(40, Happening::Answered);
        }
        if self.state.source_may_start() {
            self.state.start_from_disk(Side::Source);
        }
    }

    /// Keeps what the model says of the source's daemon in step with the product's decisions.
    pub fn follow(&mut self) {
        if self.state.source.daemon.is_some() {
            let busy = self.migration.as_ref().map(|migration| match migration.phase() {
                Phase::InDoubt => Doing::Asking,
                _ => Doing::Calling,
            });
            self.state.source.daemon = Some(busy.unwrap_or(Doing::Idle));
        }
    }

    /// A migration is over.
    pub fn end(&mut self, outcome: Outcome) {
        self.migration = None;
        self.turn += 1;
        match outcome {
            Outcome::Moved => {
                self.state.promise(migrated::journal::Step::Done);
                self.state.source.generation = self.state.next_generation();
                self.seen.moved += 1;
            }
            _ => {
                self.seen.back += 1;
                let later = 1000 + self.rng.below(5000);
                self.after(later, Happening::Send);
            }
        }
        self.dead = self.dead.max(self.state.links);
        self.state.source.linked = false;
        let later = 100 + self.rng.below(3000);
        self.after(later, Happening::Notices(Side::Destination, self.state.links));
        self.follow();
    }

    /// Has `word` go to the destination by the newest link.
    pub fn say(&mut self, word: Word) {
        self.state.say(word);
    }
}
