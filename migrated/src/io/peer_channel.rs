//! The control channel's two ends: the source calls, the destination answers and gives notice.
//!
//! One call may overtake another: answers are matched by number. When the channel ends, every call that waits is told,
//! and so is whoever waits for a notice.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex};

use serde::Serialize;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{Mutex as AsyncMutex, mpsc, oneshot};

use crate::peer::{
    Answer, Asked, Bounded, Call, Garbled, Message, Notice, Request, Told, body_len, read_call, read_message,
    say,
};

/// Notices that wait to be heard; there are four kinds, each comes once or twice.
const NOTICES_MAX: usize = 16;

/// Why there is no answer.
#[derive(Debug, Error)]
pub enum PeerError {
    /// The channel has ended.
    #[error("the link to the other host has ended")]
    Closed,
    /// It cannot be read.
    #[error("the other host does not speak as expected")]
    Garbled(#[from] Garbled),
    /// The channel failed.
    #[error("the link to the other host failed")]
    Io(#[from] io::Error),
    /// It said no.
    #[error("{}", .0.join("; "))]
    Refused(Vec<String>),
    /// It answered something else than was asked.
    #[error("the other host gave an answer that does not fit: {0:?}")]
    Unexpected(Box<Answer>),
    /// It answered in a way that is not known here.
    #[error("the other host gave an answer that this version does not know: {0:?}")]
    Unknown(String),
}

type Waiting = Arc<Mutex<Option<HashMap<u64, oneshot::Sender<Result<Answer, PeerError>>>>>>;
type Writer = Box<dyn AsyncWrite + Send + Unpin>;

/// The source's end.
#[derive(Clone)]
pub struct PeerClient {
    writer: Arc<AsyncMutex<(u64, Writer)>>,
    waiting: Waiting,
}

impl PeerClient {
    /// Takes a control channel. The notices come out of the receiver, which ends with the channel.
    pub fn start<C>(channel: C) -> (Self, mpsc::Receiver<Notice>)
    where
        C: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let (reader, writer) = tokio::io::split(channel);
        let waiting: Waiting = Arc::new(Mutex::new(Some(HashMap::new())));
        let (notices, heard) = mpsc::channel(NOTICES_MAX);
        tokio::spawn(listen(reader, Arc::clone(&waiting), notices));
        (Self { writer: Arc::new(AsyncMutex::new((0, Box::new(writer)))), waiting }, heard)
    }

    /// Has something done there. Not bounded in time: whoever calls knows its deadline.
    pub async fn call(&self, request: Request) -> Result<Answer, PeerError> {
        let (tell, answer) = oneshot::channel();
        {
            let mut writer = self.writer.lock().await;
            let id = writer.0 + 1;
            writer.0 = id;
            lock(&self.waiting).as_mut().ok_or(PeerError::Closed)?.insert(id, tell);
            write(&mut writer.1, &mut Call { id, request }).await?;
        }
        match answer.await.map_err(|_| PeerError::Closed)?? {
            Answer::Refused { reasons } => Err(PeerError::Refused(reasons)),
            answer => Ok(answer),
        }
    }

    /// Has something done that is answered by nothing but *done*.
    pub async fn order(&self, request: Request) -> Result<(), PeerError> {
        match self.call(request).await? {
            Answer::Done {} => Ok(()),
            other => Err(PeerError::Unexpected(Box::new(other))),
        }
    }
}

async fn listen<R: AsyncRead + Unpin>(mut reader: R, waiting: Waiting, notices: mpsc::Sender<Notice>) {
    let answered = |id, answer| {
        let waits = lock(&waiting).as_mut().and_then(|waiting| waiting.remove(&id));
        // Nobody waits any more where the caller was stopped.
        waits.map(|tell| tell.send(answer));
    };
    let error = loop {
        match read(&mut reader, read_message).await {
            Ok(Some(Told::Message(Message::Answer { id, answer }))) => answered(id, Ok(answer)),
            // A notice more than anybody listens to is of a peer that repeats itself.
            Ok(Some(Told::Message(Message::Notice { notice }))) => drop(notices.try_send(notice)),
            Ok(Some(Told::UnknownAnswer { id, kind })) => answered(id, Err(PeerError::Unknown(kind))),
            Ok(Some(Told::Unknown { kind })) => {
                tracing::debug!(kind, "the other host says what this version does not know");
            }
            Ok(None) => break None,
            Err(error) => break Some(error),
        }
    };
    if let Some(error) = error {
        tracing::debug!(%error, "the control channel ended");
    }
    // Every caller's half is dropped here, and so it is told.
    lock(&waiting).take();
}

/// The destination's end.
pub struct PeerServer {
    calls: mpsc::Receiver<Asked>,
    writer: PeerWriter,
}

/// Answers and gives notice.
#[derive(Clone)]
pub struct PeerWriter(Arc<AsyncMutex<Writer>>);

impl PeerServer {
    /// Takes a control channel.
    pub fn start<C>(channel: C) -> Self
    where
        C: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let (mut reader, writer) = tokio::io::split(channel);
        let (tell, calls) = mpsc::channel(NOTICES_MAX);
        tokio::spawn(async move {
            loop {
                match read(&mut reader, read_call).await {
                    Ok(Some(asked)) => {
                        if tell.send(asked).await.is_err() {
                            return;
                        }
                    }
                    Ok(None) => return,
                    Err(error) => return tracing::debug!(%error, "the control channel ended"),
                }
            }
        });
        Self { calls, writer: PeerWriter(Arc::new(AsyncMutex::new(Box::new(writer)))) }
    }

    /// The next call; none: the channel has ended.
    pub async fn next(&mut self) -> Option<Asked> {
        self.calls.recv().await
    }

    /// What answers.
    pub fn writer(&self) -> PeerWriter {
        self.writer.clone()
    }
}

impl PeerWriter {
    /// Answers a call.
    pub async fn answer(&self, id: u64, answer: Answer) -> Result<(), PeerError> {
        self.send(&mut Message::Answer { id, answer }).await
    }

    /// Says something without being asked.
    pub async fn notice(&self, notice: Notice) -> Result<(), PeerError> {
        self.send(&mut Message::Notice { notice }).await
    }

    async fn send(&self, message: &mut Message) -> Result<(), PeerError> {
        write(&mut *self.0.lock().await, message).await
    }
}

async fn write(writer: &mut Writer, message: &mut (impl Serialize + Bounded)) -> Result<(), PeerError> {
    writer.write_all(&say(message)?).await?;
    Ok(writer.flush().await?)
}

async fn read<T, R: AsyncRead + Unpin>(
    reader: &mut R,
    understand: fn(&[u8]) -> Result<T, Garbled>,
) -> Result<Option<T>, PeerError> {
    let mut head = [0; 4];
    match reader.read_exact(&mut head).await {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error.into()),
    }
    let mut body = vec![0; body_len(head)?];
    reader.read_exact(&mut body).await?;
    Ok(Some(understand(&body)?))
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().expect("nothing panics while it holds this lock")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::peer::encode;

    #[tokio::test]
    async fn answers_find_their_calls_in_any_order_and_notices_come_between() {
        let (here, there) = tokio::io::duplex(64);
        let (client, mut notices) = PeerClient::start(here);
        let mut server = PeerServer::start(there);
        let calls = [Request::PathSwitch {}, Request::PathBack {}];
        let asked = calls.map(|request| {
            let client = client.clone();
            tokio::spawn(async move { client.call(request).await })
        });
        let mut next = async || match server.next().await.unwrap() {
            Asked::Call(call) => call,
            other => panic!("{other:?}"),
        };
        let (first, second) = (next().await, next().await);
        let writer = server.writer();
        writer.notice(Notice::Loaded {}).await.unwrap();
        for call in [second, first] {
            let answer = match call.request {
                Request::PathSwitch {} => Answer::Done {},
                _ => Answer::Refused { reasons: vec!["there is none".into()] },
            };
            writer.answer(call.id, answer).await.unwrap();
        }
        let [switched, back] = asked;
        assert_eq!(switched.await.unwrap().unwrap(), Answer::Done {});
        assert_eq!(back.await.unwrap().unwrap_err().to_string(), "there is none");
        assert_eq!(notices.recv().await, Some(Notice::Loaded {}));
    }

    #[tokio::test]
    async fn what_is_not_known_is_answered_or_passed_over_and_the_channel_goes_on() {
        let (mut here, there) = tokio::io::duplex(4096);
        let mut server = PeerServer::start(there);
        here.write_all(&encode(&json!({"id": 1, "request": {"request": "explode"}}))).await.unwrap();
        here.write_all(&encode(&Call { id: 2, request: Request::PathSwitch {} })).await.unwrap();
        assert!(matches!(server.next().await, Some(Asked::Unknown { id: 1, .. })));
        assert!(matches!(server.next().await, Some(Asked::Call(Call { id: 2, .. }))));

        let (here, mut there) = tokio::io::duplex(4096);
        let (client, mut notices) = PeerClient::start(here);
        let asked = tokio::spawn({
            let client = client.clone();
            async move { client.call(Request::PathSwitch {}).await }
        });
        let mut head = [0; 4];
        there.read_exact(&mut head).await.unwrap();
        there.read_exact(&mut vec![0; body_len(head).unwrap()]).await.unwrap();
        for said in [
            json!({"message": "song"}),
            json!({"message": "notice", "notice": {"notice": "warm"}}),
            json!({"message": "answer", "id": 1, "answer": {"answer": "perhaps"}}),
            json!({"message": "notice", "notice": {"notice": "loaded", "since": 5}}),
        ] {
            there.write_all(&encode(&said)).await.unwrap();
        }
        assert!(matches!(asked.await.unwrap(), Err(PeerError::Unknown(kind)) if kind == "perhaps"));
        assert_eq!(notices.recv().await, Some(Notice::Loaded {}));
    }

    #[tokio::test]
    async fn when_the_channel_ends_all_who_wait_are_told() {
        let (here, there) = tokio::io::duplex(64);
        let (client, mut notices) = PeerClient::start(here);
        let waits = tokio::spawn({
            let client = client.clone();
            async move { client.order(Request::PathSwitch {}).await }
        });
        drop(there);
        assert!(waits.await.unwrap().is_err());
        assert_eq!(notices.recv().await, None);
        assert!(matches!(
            client.order(Request::PathBack {}).await,
            Err(PeerError::Closed | PeerError::Io(_))
        ));
    }

    #[tokio::test]
    async fn a_call_of_any_length_that_is_too_long_ends_the_channel() {
        let (mut here, there) = tokio::io::duplex(64);
        let mut server = PeerServer::start(there);
        here.write_all(&u32::MAX.to_be_bytes()).await.unwrap();
        assert!(server.next().await.is_none());
    }
}
