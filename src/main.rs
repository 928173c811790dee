//! temporary
use tokio_util::sync::CancellationToken;
#[tokio::main]
async fn main() {
    tracing_subscriber::fmt().with_env_filter("info").init();
    let settings = paybus::config::load(None, paybus::config::environment().unwrap().into_iter()).unwrap();
    let shutdown = CancellationToken::new();
    let abort = CancellationToken::new();
    let command = std::env::args().nth(1).unwrap();
    if command == "migrate" {
        let store = paybus::wiring::open_store(&settings).unwrap();
        println!("{:?}", paybus::store::migrate::migrate(&store).await);
        return;
    }
    let token = shutdown.clone();
    tokio::spawn(async move {
        tokio::signal::ctrl_c().await.unwrap();
        token.cancel();
    });
    if let Err(error) = paybus::worker::run(settings, shutdown, abort).await {
        eprintln!("{error} {error:?}");
    }
}
