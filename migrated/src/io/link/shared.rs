//! The session behind a lock, and who is to be woken when it changes.
//!
//! The lock is held for a copy of at most one frame's bytes, never across an await. Wakers are called outside of it.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::Waker;
use std::time::{Duration, Instant};

use tokio::sync::{Notify, oneshot, watch};
use tokio::task::AbortHandle;

use crate::io::tls::socket::Segments;
use crate::link::Lane;
use crate::link::addresses::{Addresses, Found};
use crate::link::error::LinkError;
use crate::link::session::{Event, Next, Session, Side};
use crate::link::stripes;

/// Most news that wait for somebody to ask for them.
const NEWS_MAX: usize = 64;

/// One connection's place: replaced when another takes it.
#[derive(Default)]
pub(super) struct Berth {
    /// Counts the connections; what an older one says does not count.
    pub epoch: u64,
    pub wake: Arc<Notify>,
    pub task: Option<AbortHandle>,
    pub congestion_control: String,
    /// Records that left on a connection of several parts.
    pub records: u64,
    pub down_since: Option<Duration>,
    /// Where its connection goes, or went last.
    pub place: Option<Place>,
}

/// Where a connection goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub address: SocketAddr,
    /// The other side dialled: its port means nothing.
    pub accepted: bool,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.accepted {
            true => write!(f, "{} (dialled from there)", self.address.ip()),
            false => self.address.fmt(f),
        }
    }
}

/// Something that has happened to a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct News {
    /// What.
    pub text: String,
    /// It is worth a warning.
    pub is_warning: bool,
}

pub(super) struct State {
    pub session: Session,
    pub readers: BTreeMap<u32, Waker>,
    pub writers: BTreeMap<u32, Waker>,
    pings: BTreeMap<u64, oneshot::Sender<Duration>>,
    pub berths: [Berth; 2],
    /// Of all its connections so far.
    pub segments: Segments,
    pub warnings: Vec<String>,
    /// What nobody has asked for yet.
    pub news: Vec<News>,
    /// Where the other side may be reached.
    pub addresses: Addresses,
    /// What was found of its data addresses when the link was made.
    pub found: Vec<Found>,
    /// No lane goes back to a better way: a paused guest waits for what is on it.
    pub stays: bool,
    /// How long it is kept without a connection; zero: it ends with its connection.
    pub patience: Duration,
}

impl State {
    /// Where to dial for a lane; none: it has its connection, or needs none any more.
    pub fn candidates(&self, lane: Lane) -> Option<Vec<SocketAddr>> {
        let lacks = !self.session.is_attached(lane) && self.session.over().is_none();
        lacks.then(|| self.addresses.candidates(lane))
    }

    /// Where a lane would go over a better way than it does. None while it has to stay.
    pub fn better(&self, lane: Lane) -> Vec<SocketAddr> {
        let place = self.berths[lane as usize].place;
        match place.filter(|_| self.session.is_attached(lane) && !self.stays) {
            Some(place) => self.addresses.better(lane, place.address.ip()),
            None => Vec::new(),
        }
    }

    /// Notes where a lane goes now, and tells it if that is somewhere else than before.
    fn settle(&mut self, lane: Lane, place: Option<Place>) {
        let berth = &mut self.berths[lane as usize];
        let Some((new, old)) = place.zip(std::mem::replace(&mut berth.place, place)) else { return };
        if new.address.ip() == old.address.ip() {
            return;
        }
        let is_better =
            self.addresses.better(lane, old.address.ip()).iter().any(|to| to.ip() == new.address.ip());
        let text = match is_better {
            true => format!("link: {lane} goes over {new} again"),
            false => format!("link: {old} is out of reach, {lane} goes over {new}"),
        };
        self.note(text, !is_better);
    }

    fn note(&mut self, text: String, is_warning: bool) {
        self.news.truncate(NEWS_MAX);
        self.news.push(News { text, is_warning });
    }
}

/// What all handles and tasks of a link share.
pub(super) struct Shared {
    start: Instant,
    state: Mutex<State>,
    /// The other side opened a channel.
    pub opened: Notify,
    /// A lane lost its connection.
    pub lost: [Notify; 2],
    /// Something was acknowledged or ended; for who waits for everything to arrive.
    pub over: watch::Sender<Option<LinkError>>,
    pub peer: String,
}

impl Shared {
    pub fn new(
        side: Side,
        peer: String,
        addresses: Addresses,
        limit_bytes_per_s: Option<u64>,
        patience: Duration,
    ) -> Arc<Self> {
        let mut session = Session::new(side);
        session.set_limit(limit_bytes_per_s, Duration::ZERO);
        let berths = [Berth::default(), Berth::default()];
        let state = State {
            session,
            readers: BTreeMap::new(),
            writers: BTreeMap::new(),
            pings: BTreeMap::new(),
            berths,
            segments: Segments::default(),
            warnings: Vec::new(),
            news: Vec::new(),
            addresses,
            found: Vec::new(),
            stays: false,
            patience,
        };
        Arc::new(Self {
            start: Instant::now(),
            state: Mutex::new(state),
            opened: Notify::new(),
            lost: [Notify::new(), Notify::new()],
            over: watch::Sender::new(None),
            peer,
        })
    }

    pub fn now(&self) -> Duration {
        self.start.elapsed()
    }

    /// One of its connections has sent these, too.
    pub fn count_segments(&self, more: Segments) {
        let segments = &mut self.locked().segments;
        segments.sent += more.sent;
        segments.resent += more.resent;
    }

    fn locked(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nobody panics with the session in hand")
    }

    /// Does something with the state, then wakes whom it concerns.
    pub fn with<T>(&self, work: impl FnOnce(&mut State, Duration) -> T) -> T {
        let mut wakers = Vec::new();
        let now = self.now();
        let result = {
            let mut state = self.locked();
            let result = work(&mut state, now);
            self.dispatch(&mut state, now, &mut wakers);
            result
        };
        wakers.into_iter().for_each(Waker::wake);
        result
    }

    fn dispatch(&self, state: &mut State, now: Duration, wakers: &mut Vec<Waker>) {
        while let Some(event) = state.session.poll_event() {
            match event {
                Event::Readable(id) => wakers.extend(state.readers.remove(&id)),
                Event::Writable(id) => wakers.extend(state.writers.remove(&id)),
                Event::Opened => self.opened.notify_waiters(),
                Event::Send(lane) => state.berths[lane as usize].wake.notify_one(),
                Event::Silent(lane) => {
                    if let Some(task) = &state.berths[lane as usize].task {
                        task.abort();
                    }
                    tracing::warn!(peer = self.peer, %lane, "nothing heard for three seconds");
                    self.drop_lane(state, lane, "the peer is silent", now);
                }
                Event::Pong { nonce, rtt } => {
                    if let Some(asked) = state.pings.remove(&nonce) {
                        let _ = asked.send(rtt);
                    }
                }
                Event::Closed => {
                    let text = state.session.over().unwrap_or_default().to_owned();
                    state.pings.clear();
                    self.over.send_if_modified(|over| {
                        over.get_or_insert(LinkError::Over(text));
                        true
                    });
                    self.lost.iter().for_each(Notify::notify_one);
                    state.berths.iter().for_each(|berth| berth.wake.notify_one());
                }
            }
        }
    }

    /// A lane has no connection any more.
    fn drop_lane(&self, state: &mut State, lane: Lane, why: &str, now: Duration) {
        let berth = &mut state.berths[lane as usize];
        berth.epoch += 1;
        berth.task = None;
        berth.down_since = Some(now);
        state.session.detach(lane);
        if state.patience.is_zero() {
            state.session.end(&format!("the {lane} connection to {} is gone: {why}", self.peer));
        }
        self.lost[lane as usize].notify_one();
    }

    /// A connection takes the place of a lane, and of the connection that had it. Returns its epoch and its bell.
    pub fn attach(&self, lane: Lane, congestion_control: &str, place: Option<Place>) -> (u64, Arc<Notify>) {
        self.with(|state, now| {
            state.settle(lane, place);
            let berth = &mut state.berths[lane as usize];
            if let Some(task) = berth.task.take() {
                task.abort();
            }
            berth.epoch += 1;
            berth.wake = Arc::new(Notify::new());
            berth.down_since = None;
            berth.congestion_control = congestion_control.to_owned();
            berth.records = 0;
            let place = (berth.epoch, berth.wake.clone());
            state.session.attach(lane, now);
            place
        })
    }

    /// Remembers the task of a connection, so that it can be ended.
    pub fn set_task(&self, lane: Lane, epoch: u64, task: AbortHandle) {
        self.with(|state, _| match &mut state.berths[lane as usize] {
            berth if berth.epoch == epoch => berth.task = Some(task),
            _ => task.abort(),
        });
    }

    /// Does something for a connection, unless another has taken its place.
    pub fn with_lane<T>(
        &self,
        lane: Lane,
        epoch: u64,
        work: impl FnOnce(&mut Session, Duration) -> T,
    ) -> Option<T> {
        self.with(|state, now| {
            (state.berths[lane as usize].epoch == epoch).then(|| work(&mut state.session, now))
        })
    }

    /// What a connection sends next, and what the kernel may hold of it.
    pub fn poll_frame(&self, lane: Lane, epoch: u64, out: &mut Vec<u8>) -> (Next, u64) {
        let next = self.with_lane(lane, epoch, |session, now| {
            let next = session.poll_frame(lane, now, out);
            (next, session.socket_unsent_bytes())
        });
        next.unwrap_or((Next::Over, 0))
    }

    /// The same as a record, for a connection of several parts. Numbers follow the order of the frames.
    pub fn poll_record(&self, lane: Lane, epoch: u64, out: &mut Vec<u8>) -> (Next, u64) {
        self.with(|state, now| {
            let berth = &mut state.berths[lane as usize];
            if berth.epoch != epoch {
                return (Next::Over, 0);
            }
            stripes::begin(out);
            let next = state.session.poll_frame(lane, now, out);
            if next == Next::Frames {
                stripes::seal(out, berth.records);
                berth.records += 1;
            }
            (next, state.session.socket_unsent_bytes())
        })
    }

    /// Something worth knowing, said once.
    pub fn warn(&self, warning: String) {
        self.with(|state, _| {
            if !state.warnings.contains(&warning) {
                tracing::warn!(peer = self.peer, "{warning}");
                state.warnings.push(warning.clone());
                state.note(warning, true);
            }
        });
    }

    /// Something that has happened.
    pub fn tell(&self, text: String) {
        tracing::info!(peer = self.peer, "{text}");
        self.with(|state, _| state.note(text, false));
    }

    /// The other side came from there.
    pub fn see(&self, ip: IpAddr) {
        self.with(|state, _| state.addresses.see(ip));
    }

    /// A connection has ended.
    pub fn lose(&self, lane: Lane, epoch: u64, why: &str) {
        self.with(|state, now| {
            if state.berths[lane as usize].epoch == epoch {
                if state.session.over().is_none() {
                    tracing::warn!(peer = self.peer, %lane, "connection lost: {why}");
                }
                self.drop_lane(state, lane, why, now);
            }
        });
    }

    /// The clock: heartbeats, and a link that was without a connection for too long.
    pub fn tick(&self) {
        self.with(|state, now| {
            state.session.handle_timeout(now);
            let down = state.berths.iter().filter_map(|berth| berth.down_since).min();
            let down = down.map_or(Duration::ZERO, |since| now.saturating_sub(since));
            if down > state.patience && state.session.over().is_none() {
                let text = format!("no connection to {} for {} s", self.peer, down.as_secs());
                state.session.end(&text);
            }
        });
    }

    /// The link is over: now, and for this reason.
    pub fn end(&self, why: &str) {
        self.with(|state, _| state.session.end(why));
    }

    /// A ping, and where its echo will be told.
    pub fn ping(&self) -> oneshot::Receiver<Duration> {
        let (tell, told) = oneshot::channel();
        self.with(|state, _| {
            state.pings.retain(|_, asked| !asked.is_closed());
            let nonce = state.session.ping();
            state.pings.insert(nonce, tell);
        });
        told
    }
}
