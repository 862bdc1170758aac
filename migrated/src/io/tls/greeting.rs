//! Making one connection: TCP or a program, TLS, the hello and its answer, all within a time, and every failure in words.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsStream;

use super::socket::{Knobs, connect};
use super::{Pin, connector, exporter, peer_key, server_name};
use crate::io::carrier::{Carrier, Program};
use crate::io::keys::{Keys, Spki, fingerprint};
use crate::link::error::LinkError;
use crate::link::hello::{Message, PREFIX_BYTES, Refused};
use crate::transport::Transport;

/// A connection whose other side has proved its key.
pub struct Secured {
    /// The connection.
    pub stream: TlsStream<Carrier>,
    /// Its knobs.
    pub knobs: Knobs,
    /// The other side's key.
    pub peer_key: Spki,
    /// The other side's address; where a program carries the connection, the one that it stands for.
    pub address: SocketAddr,
}

impl Secured {
    /// Bytes that only the two ends of this connection know.
    pub fn exporter(&self) -> Result<[u8; 32], LinkError> {
        let exported = match &self.stream {
            TlsStream::Client(stream) => exporter(stream.get_ref().1),
            TlsStream::Server(stream) => exporter(stream.get_ref().1),
        };
        exported.map_err(|error| LinkError::Local(format!("TLS gives no exporter: {error}")))
    }

    /// The other side made it.
    pub fn was_accepted(&self) -> bool {
        matches!(self.stream, TlsStream::Server(_))
    }

    /// The other side's address; none where a program carries the connection.
    pub fn remote(&self) -> Option<SocketAddr> {
        match self.stream.get_ref().0 {
            Carrier::Tcp(_) => Some(self.address),
            Carrier::Program(_) => None,
        }
    }

    /// Sends a message.
    pub async fn say(&mut self, message: &Message) -> std::io::Result<()> {
        self.stream.write_all(&message.encode()).await?;
        self.stream.flush().await
    }

    /// The next message.
    pub async fn hear(&mut self) -> Result<Message, LinkError> {
        hear(&mut self.stream).await.map_err(|error| error.at(self.address))
    }
}

/// Where and how a dial goes.
pub struct Dial<'a> {
    /// This host's key.
    pub keys: &'a Keys,
    /// Whom it accepts.
    pub pin: Pin,
    /// What carries it.
    pub transport: &'a Transport,
    /// The congestion control that is asked for.
    pub congestion_control: &'a str,
    /// Where to.
    pub to: SocketAddr,
    /// From which address; none: the kernel picks.
    pub from: Option<SocketAddr>,
    /// The other host's name, for messages.
    pub whom: &'a str,
    /// How long all of it may take.
    pub within: Duration,
}

impl Dial<'_> {
    /// Connects, by whatever carries it.
    async fn carrier(&self) -> std::io::Result<(Carrier, Knobs)> {
        match self.transport {
            Transport::Tcp => {
                let tcp = connect(self.to, self.from).await?;
                let knobs = Knobs::set_up(&tcp, self.congestion_control)?;
                Ok((tcp.into(), knobs))
            }
            Transport::Exec(words) => {
                let program = Program::start(words)?;
                Ok((Carrier::Program(program), Knobs::none(&words[0])))
            }
        }
    }

    /// The other end, for messages.
    fn place(&self) -> String {
        match self.transport {
            Transport::Tcp => self.to.to_string(),
            Transport::Exec(words) => format!("the other end of {}", words[0]),
        }
    }

    /// Connects and proves both keys.
    async fn secure(&self) -> Result<Secured, LinkError> {
        let to = self.to;
        let unreachable =
            |error| LinkError::Unreachable(format!("{} at {}: {error}", self.whom, self.place()));
        let (carrier, knobs) = self.carrier().await.map_err(unreachable)?;
        let tls = connector(self.keys, self.pin.clone());
        let tls = tls.map_err(|error| LinkError::Local(format!("this host's key does not work: {error}")))?;
        let stream = tls.connect(server_name(), carrier).await.map_err(|error| self.tls_error(&error))?;
        let key = peer_key(stream.get_ref().1);
        let peer_key = key.ok_or_else(|| LinkError::Garbage(format!("{to} shows no key")))?;
        Ok(Secured { stream: stream.into(), knobs, peer_key, address: to })
    }

    /// Connects, says `hello`, and returns the connection and the welcome.
    pub async fn greet(&self, hello: Message) -> Result<(Secured, Message), LinkError> {
        let greeting = async {
            let mut secured = self.secure().await?;
            let said = secured.say(&hello).await;
            // A refusal may be there to read although the other side has stopped listening.
            match secured.hear().await {
                Ok(Message::Refused(refused)) => Err(refused.into()),
                Ok(answer) => Ok((secured, answer)),
                Err(error) => Err(match said {
                    Ok(()) => error,
                    Err(said) => LinkError::Unreachable(format!("{} at {}: {said}", self.whom, self.place())),
                }),
            }
        };
        let late = |_| {
            LinkError::TimedOut(format!(
                "{} at {} does not answer within {} s",
                self.whom,
                self.place(),
                self.within.as_secs_f32()
            ))
        };
        timeout(self.within, greeting).await.unwrap_or_else(|elapsed| Err(late(elapsed)))
    }

    fn tls_error(&self, error: &std::io::Error) -> LinkError {
        let (whom, to) = (self.whom, self.place());
        let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
        match tls {
            Some(rustls::Error::InvalidCertificate(_)) => LinkError::WrongKey(format!(
                "the host at {to} does not have the key that is expected of {whom}; if it was set up anew, pair again"
            )),
            Some(tls) => LinkError::Garbage(format!("{to}: {tls}")),
            None => LinkError::Unreachable(format!("{whom} at {to} hung up during the handshake: {error}")),
        }
    }
}

/// Why no message came.
#[derive(Debug, thiserror::Error)]
pub enum Unheard {
    /// The connection failed or ended.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// Bytes came that are no message.
    #[error("{0}")]
    Malformed(#[from] crate::link::wire::Malformed),
}

impl Unheard {
    fn at(self, address: SocketAddr) -> LinkError {
        match self {
            Unheard::Io(error) => LinkError::Unreachable(format!("{address} hung up: {error}")),
            Unheard::Malformed(error) => LinkError::Garbage(format!("{address}: {error}")),
        }
    }
}

/// Reads one message, and not a byte more.
pub async fn hear(stream: &mut (impl AsyncRead + Unpin)) -> Result<Message, Unheard> {
    let mut bytes = vec![0; PREFIX_BYTES];
    stream.read_exact(&mut bytes).await?;
    let prefix = bytes.first_chunk().expect("it is that long");
    let rest = Message::rest_bytes(prefix)?;
    bytes.resize(PREFIX_BYTES + rest, 0);
    stream.read_exact(&mut bytes[PREFIX_BYTES..]).await?;
    Ok(Message::decode(&bytes)?)
}

/// Tells the other side no, and waits a moment for it to hear that.
pub async fn refuse(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), refused: Refused) {
    let said = stream.write_all(&Message::Refused(refused).encode()).await;
    if said.is_ok() && stream.shutdown().await.is_ok() {
        // Closing with bytes unread would reset the connection, and the reason with it.
        let mut rest = [0; 1024];
        while stream.read(&mut rest).await.is_ok_and(|count| count > 0) {}
    }
}

/// Accepts TLS on a connection and reads the first message.
pub async fn answer(
    acceptor: &tokio_rustls::TlsAcceptor,
    congestion_control: &str,
    tcp: TcpStream,
    address: SocketAddr,
) -> Result<(Secured, Message), LinkError> {
    let unreachable = |error: std::io::Error| LinkError::Unreachable(format!("{address} hung up: {error}"));
    let knobs = Knobs::set_up(&tcp, congestion_control).map_err(unreachable)?;
    let stream = acceptor.accept(tcp.into()).await.map_err(|error| accept_error(address, &error))?;
    let key = peer_key(stream.get_ref().1);
    let peer_key = key.ok_or_else(|| LinkError::Garbage(format!("{address} shows no key")))?;
    let mut secured = Secured { stream: stream.into(), knobs, peer_key, address };
    match hear(&mut secured.stream).await {
        Ok(message) => Ok((secured, message)),
        Err(Unheard::Malformed(error)) => {
            let text = format!("this is no hello: {error}");
            let refused = Refused { code: crate::link::hello::RefusalCode::Other, text };
            refuse(&mut secured.stream, refused).await;
            Err(LinkError::Garbage(format!("{address} (key {}): {error}", fingerprint(&peer_key))))
        }
        Err(Unheard::Io(error)) => Err(unreachable(error)),
    }
}

fn accept_error(address: SocketAddr, error: &std::io::Error) -> LinkError {
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match tls {
        Some(rustls::Error::AlertReceived(alert)) => LinkError::WrongKey(format!(
            "{address} does not accept this host's key ({alert:?}); if either host was set up anew, pair again"
        )),
        Some(tls) => LinkError::Garbage(format!("{address}: {tls}")),
        None => LinkError::Unreachable(format!("{address} hung up during the handshake: {error}")),
    }
}
