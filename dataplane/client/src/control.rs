//! The control channel: gRPC on a thread of its own.

use std::sync::Arc;
use std::time::Duration;

use genie_control_api::v1::control_client::ControlClient;
use genie_control_api::v1::peers_client::PeersClient;
use genie_control_api::v1::placement_client::PlacementClient;
use genie_control_api::v1::{
    CloseSessionRequest, EndWayRequest, LoadReply, LoadRequest, ObserveReply, ObserveRequest,
    OfferWayReply, OfferWayRequest, OpenSessionReply, OpenSessionRequest, OpenWayReply,
    OpenWayRequest, PlaceReply, PlaceRequest, StatusReply, StatusRequest, SubmitSegmentReply,
    SubmitSegmentRequest,
};
use genie_control_api::{ErrorCode, Unanswered};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tonic::transport::{Channel, Endpoint};

use crate::address::{Address, Tls};
use crate::wire;

/// Requests that may wait.
const QUEUE_MAX: usize = 64;
/// A template may take this much in one message.
const MESSAGE_MAX: usize = 16 << 20;

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// Nobody answered.
    #[error("{0}")]
    Unreachable(String),
    /// Who is there does not trust this client, or this client does not trust it.
    #[error("{0}")]
    Untrusted(String),
    /// The node said no.
    #[error("{message}")]
    Refused {
        /// For a program; `None` from something that is not Genie.
        code: Option<ErrorCode>,
        /// For a person.
        message: String,
    },
}

impl ControlError {
    /// Of a call without an answer.
    fn of(error: &(dyn std::error::Error + 'static)) -> Self {
        match Unanswered::of(error) {
            Unanswered::Gone(why) => Self::Unreachable(why),
            Unanswered::Untrusted(why) => Self::Untrusted(why),
        }
    }

    /// Whoever was asked is gone, or knows nothing of the session: it began anew.
    fn is_forgotten(&self) -> bool {
        match self {
            Self::Unreachable(_) | Self::Untrusted(_) => true,
            Self::Refused { code, .. } => *code == Some(ErrorCode::UnknownSession),
        }
    }
}

/// Asks a node what it has and does. Needs no session.
///
/// # Errors
/// Nobody there, or refused.
pub fn status(
    address: &Address,
    tls: Option<&Tls>,
    timeout: Duration,
) -> Result<StatusReply, ControlError> {
    runtime()?.block_on(async {
        let mut client = control(channel(address, tls, timeout).await?);
        first(address, tls, timeout, client.status(StatusRequest {})).await
    })
}

fn runtime() -> Result<tokio::runtime::Runtime, ControlError> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| ControlError::Unreachable(error.to_string()))
}

fn late(timeout: Duration) -> ControlError {
    ControlError::Unreachable(format!("no answer within {timeout:?}"))
}

/// The answer to a call, if it comes in time and is not a refusal.
async fn within<T>(
    timeout: Duration,
    call: impl Future<Output = Result<tonic::Response<T>, tonic::Status>>,
) -> Result<T, ControlError> {
    let reply = tokio::time::timeout(timeout, call)
        .await
        .map_err(|_| late(timeout))?;
    Ok(reply.map_err(refused)?.into_inner())
}

/// Ends the session that was answered to.
#[must_use]
pub fn goodbye(opened: &OpenSessionReply) -> CloseSessionRequest {
    CloseSessionRequest {
        session_id: opened.session_id,
        data_token: opened.data_token.clone(),
    }
}

/// What is done with the answer to a submitted segment.
pub type OnPlan = Box<dyn FnOnce(Result<SubmitSegmentReply, ControlError>) + Send>;

type Answer<T> = std::sync::mpsc::Sender<Result<T, ControlError>>;

/// What is done with the places of a segment.
pub type OnPlaces = Box<dyn FnOnce(Result<PlaceReply, ControlError>) + Send>;

/// What is done with a device's load.
pub type OnLoad = Box<dyn FnOnce(Result<LoadReply, ControlError>) + Send>;

/// What is done with what is said of plans.
pub type OnObserved = Box<dyn FnOnce(Result<ObserveReply, ControlError>) + Send>;

enum Request {
    Submit(SubmitSegmentRequest, OnPlan),
    Place(PlaceRequest, OnPlaces),
    Load(LoadRequest, OnLoad),
    Observe(ObserveRequest, OnObserved),
    OfferWay(OfferWayRequest, Answer<OfferWayReply>),
    OpenWay(OpenWayRequest, Answer<OpenWayReply>),
    EndWay(EndWayRequest),
    Close(CloseSessionRequest, std::sync::mpsc::Sender<()>),
    Abandon,
}

/// A control channel to one node.
pub struct Control {
    requests: mpsc::Sender<Request>,
}

impl Control {
    /// Connects and opens a session, within `timeout`.
    ///
    /// # Errors
    /// Nobody there, or refused.
    pub fn open(
        address: Address,
        tls: Option<Tls>,
        request: OpenSessionRequest,
        timeout: Duration,
    ) -> Result<(Self, OpenSessionReply), ControlError> {
        let (requests, inbox) = mpsc::channel(QUEUE_MAX);
        let (opened, answer) = std::sync::mpsc::channel();
        std::thread::Builder::new()
            .name("genie-control".to_owned())
            .spawn(move || match runtime() {
                Ok(runtime) => {
                    runtime.block_on(serve(address, tls, request, timeout, opened, inbox));
                }
                Err(error) => {
                    let _ = opened.send(Err(error));
                }
            })
            .map_err(|error| ControlError::Unreachable(error.to_string()))?;
        let reply = answer
            .recv_timeout(timeout + Duration::from_secs(1))
            .map_err(|_| late(timeout))??;
        Ok((Self { requests }, reply))
    }

    /// To nobody: nothing is planned, and there is nobody to say goodbye to.
    #[must_use]
    pub fn to_nobody() -> Self {
        let (requests, _) = mpsc::channel(1);
        Self { requests }
    }

    /// Submits a segment; `done` is called on the channel's thread. False if too many wait.
    pub fn submit(&self, request: SubmitSegmentRequest, done: OnPlan) -> bool {
        self.requests
            .try_send(Request::Submit(request, done))
            .is_ok()
    }

    /// Asks where the records of a segment are to run; as [`Control::submit`].
    pub fn place(&self, request: PlaceRequest, done: OnPlaces) -> bool {
        self.requests
            .try_send(Request::Place(request, done))
            .is_ok()
    }

    /// Tells what became of plans; as [`Control::submit`].
    pub fn observe(&self, request: ObserveRequest, done: OnObserved) -> bool {
        self.requests
            .try_send(Request::Observe(request, done))
            .is_ok()
    }

    /// Asks what a session's device has to do; as [`Control::submit`].
    pub fn load(&self, request: LoadRequest, done: OnLoad) -> bool {
        self.requests.try_send(Request::Load(request, done)).is_ok()
    }

    /// Prepares the node for values of another device of the session; waits at most `timeout`.
    ///
    /// # Errors
    /// Nobody there, or refused.
    pub fn offer_way(
        &self,
        request: OfferWayRequest,
        timeout: Duration,
    ) -> Result<OfferWayReply, ControlError> {
        self.ask(|answer| Request::OfferWay(request, answer), timeout)
    }

    /// Connects the node to where another device of the session was offered; waits at most `timeout`.
    ///
    /// # Errors
    /// Nobody there, or refused.
    pub fn open_way(
        &self,
        request: OpenWayRequest,
        timeout: Duration,
    ) -> Result<OpenWayReply, ControlError> {
        self.ask(|answer| Request::OpenWay(request, answer), timeout)
    }

    /// Tells the node that another device of the session is lost. Nobody waits for that.
    pub fn end_way(&self, request: EndWayRequest) -> bool {
        self.requests.try_send(Request::EndWay(request)).is_ok()
    }

    fn ask<T>(
        &self,
        request: impl FnOnce(Answer<T>) -> Request,
        timeout: Duration,
    ) -> Result<T, ControlError> {
        let (answer, answered) = std::sync::mpsc::channel();
        let asked = self.requests.try_send(request(answer));
        asked.map_err(|_| ControlError::Unreachable("too many requests wait".to_owned()))?;
        answered.recv_timeout(timeout).map_err(|_| late(timeout))?
    }

    /// The node is lost: the channel's thread ends.
    pub fn abandon(&self) {
        // With a full queue the thread is in a call, which fails by itself.
        let _ = self.requests.try_send(Request::Abandon);
    }

    /// Ends the session, waiting at most `timeout`.
    pub fn close(&self, request: CloseSessionRequest, timeout: Duration) {
        let (done, waited) = std::sync::mpsc::channel();
        if self
            .requests
            .try_send(Request::Close(request, done))
            .is_ok()
        {
            let _ = waited.recv_timeout(timeout);
        }
    }
}

type Opened = std::sync::mpsc::Sender<Result<OpenSessionReply, ControlError>>;

async fn serve(
    address: Address,
    tls: Option<Tls>,
    request: OpenSessionRequest,
    timeout: Duration,
    opened: Opened,
    mut inbox: mpsc::Receiver<Request>,
) {
    let (channel, reply) = match open(&address, tls.clone(), request, timeout).await {
        Ok(both) => both,
        Err(error) => {
            let _ = opened.send(Err(error));
            return;
        }
    };
    let line = Arc::new(Line {
        now: Mutex::new((reply.node.is_empty(), channel)),
        standby: tokio::sync::Mutex::new(Address::parse(&reply.node).ok()),
        tls,
        timeout,
    });
    let _ = opened.send(Ok(reply));
    // In their order: a plan that was submitted first is there first. A node may be long about one, since its
    // executor is; nothing else waits for that.
    let (submitted, mut submissions) = mpsc::channel::<(SubmitSegmentRequest, OnPlan)>(QUEUE_MAX);
    let submitting = Arc::clone(&line);
    tokio::spawn(async move {
        while let Some((request, done)) = submissions.recv().await {
            let submit =
                |channel, request| async move { control(channel).submit_segment(request).await };
            done(submitting.call(request, submit).await);
        }
    });
    while let Some(request) = inbox.recv().await {
        match request {
            Request::Submit(request, done) => {
                // As many wait there as here.
                if let Err(error) = submitted.try_send((request, done)) {
                    let (_, done) = error.into_inner();
                    let why = "too many segments wait to be planned".to_owned();
                    done(Err(ControlError::Unreachable(why)));
                }
            }
            Request::Place(request, done) => {
                line.ask(request, done, |channel, request| async move {
                    placement(channel).place(request).await
                })
            }
            Request::Load(request, done) => {
                line.ask(request, done, |channel, request| async move {
                    placement(channel).load(request).await
                })
            }
            Request::Observe(request, done) => {
                line.ask(request, done, |channel, request| async move {
                    placement(channel).observe(request).await
                });
            }
            // Dialling may take a while, and nobody else should wait for it.
            Request::OfferWay(request, answer) => {
                line.ask(request, to(answer), |channel, request| async move {
                    PeersClient::new(channel).offer_way(request).await
                });
            }
            Request::OpenWay(request, answer) => {
                line.ask(request, to(answer), |channel, request| async move {
                    PeersClient::new(channel).open_way(request).await
                });
            }
            // A node that can't be told is lost itself.
            Request::EndWay(request) => line.ask(request, drop, |channel, request| async move {
                PeersClient::new(channel).end_way(request).await
            }),
            Request::Abandon => return,
            Request::Close(request, done) => {
                let close =
                    |channel, request| async move { control(channel).close_session(request).await };
                let _ = line.call(request, close).await;
                let _ = done.send(());
                return;
            }
        }
    }
}

/// Passes an answer to who waits for it, if somebody still does.
fn to<T>(answer: Answer<T>) -> impl FnOnce(Result<T, ControlError>) {
    move |answered| {
        let _ = answer.send(answered);
    }
}

/// Whom a session's questions go to: who opened it; and should that be a control plane that is gone, the
/// session's own node, which knows all that an answer needs.
struct Line {
    /// And whether that is the session's own node.
    now: Mutex<(bool, Channel)>,
    /// Where the node is, until it is asked.
    standby: tokio::sync::Mutex<Option<Address>>,
    tls: Option<Tls>,
    timeout: Duration,
}

impl Line {
    /// Asks behind whoever comes next.
    fn ask<R, T, F>(
        self: &Arc<Self>,
        request: R,
        done: impl FnOnce(Result<T, ControlError>) + Send + 'static,
        ask: impl Fn(Channel, R) -> F + Send + 'static,
    ) where
        R: Clone + Send + 'static,
        T: Send,
        F: Future<Output = Result<tonic::Response<T>, tonic::Status>> + Send,
    {
        let line = Arc::clone(self);
        tokio::spawn(async move { done(line.call(request, ask).await) });
    }

    async fn call<R: Clone, T, F>(
        &self,
        request: R,
        ask: impl Fn(Channel, R) -> F,
    ) -> Result<T, ControlError>
    where
        F: Future<Output = Result<tonic::Response<T>, tonic::Status>>,
    {
        let (is_home, asked) = self.now.lock().clone();
        let again = (!is_home).then(|| request.clone());
        let error = match ask(asked, request).await.map_err(refused) {
            Ok(reply) => return Ok(reply.into_inner()),
            Err(error) => error,
        };
        let Some(again) = again.filter(|_| error.is_forgotten()) else {
            return Err(error);
        };
        match self.go_home().await {
            Some(channel) => Ok(ask(channel, again).await.map_err(refused)?.into_inner()),
            None => Err(error),
        }
    }

    /// To the node, if there is one behind whom it asks now. Of several that go at once the others wait.
    async fn go_home(&self) -> Option<Channel> {
        let mut standby = self.standby.lock().await;
        let Some(address) = standby.as_ref() else {
            let (is_home, channel) = self.now.lock().clone();
            return is_home.then_some(channel);
        };
        let channel = channel(address, self.tls.as_ref(), self.timeout)
            .await
            .ok()?;
        *standby = None;
        *self.now.lock() = (true, channel.clone());
        Some(channel)
    }
}

async fn open(
    address: &Address,
    tls: Option<Tls>,
    request: OpenSessionRequest,
    timeout: Duration,
) -> Result<(Channel, OpenSessionReply), ControlError> {
    let channel = channel(address, tls.as_ref(), timeout).await?;
    let mut client = control(channel.clone());
    let asked = client.open_session(request);
    let reply = first(address, tls.as_ref(), timeout, asked).await?;
    Ok((channel, reply))
}

/// The answer to the first call of a channel: whoever is not trusted hears of it here.
async fn first<T>(
    address: &Address,
    tls: Option<&Tls>,
    timeout: Duration,
    call: impl Future<Output = Result<tonic::Response<T>, tonic::Status>>,
) -> Result<T, ControlError> {
    match within(timeout, call).await {
        Err(ControlError::Unreachable(why)) => {
            let distrust = wire::distrust(address, tls, timeout).await;
            Err(distrust.map_or(ControlError::Unreachable(why), ControlError::Untrusted))
        }
        answered => answered,
    }
}

fn placement(channel: Channel) -> PlacementClient<Channel> {
    PlacementClient::new(channel).max_encoding_message_size(MESSAGE_MAX)
}

fn control(channel: Channel) -> ControlClient<Channel> {
    ControlClient::new(channel)
        .max_encoding_message_size(MESSAGE_MAX)
        .max_decoding_message_size(MESSAGE_MAX)
}

async fn channel(
    address: &Address,
    tls: Option<&Tls>,
    timeout: Duration,
) -> Result<Channel, ControlError> {
    let unreachable = |error: &dyn std::fmt::Display| ControlError::Unreachable(error.to_string());
    // A gateway's socket has no authority: the node is asked for by its name.
    let authority = match address {
        Address::Node { .. } => address.to_string().split_off("tcp://".len()),
        Address::Gateway { name, .. } => name.clone(),
    };
    let endpoint = Endpoint::from_shared(format!("http://{authority}"))
        .map_err(|error| unreachable(&error))?
        .connect_timeout(timeout);
    let (address, tls) = (address.clone(), tls.cloned());
    let service = tower::service_fn(move |_| {
        let (address, tls) = (address.clone(), tls.clone());
        async move {
            Ok::<_, std::io::Error>(TokioIo::new(
                wire::connect(&address, tls.as_ref(), timeout).await?,
            ))
        }
    });
    let channel = endpoint.connect_with_connector(service).await;
    channel.map_err(|error| ControlError::of(&error))
}

fn refused(status: tonic::Status) -> ControlError {
    let code = ErrorCode::of(&status);
    if code.is_none() {
        return ControlError::of(&status);
    }
    ControlError::Refused {
        code,
        message: status.message().to_owned(),
    }
}
