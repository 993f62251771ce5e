//! A Solana chain on the loopback: `surfnet [SLOT_MS]` starts it and prints one line of JSON, the addresses of its JSON-RPC and its websocket,
//! when they answer. It ends by a signal. Its state lives in memory.

use std::io::{self, Write};
use std::process::ExitCode;

use surfpool_sdk::{BlockProductionMode, SimnetEvent, Surfnet};

/// Of Solana's clusters.
const SLOT_MS: u64 = 400;

fn main() -> ExitCode {
    let slot_ms = match std::env::args().nth(1).map(|text| text.parse()) {
        None => SLOT_MS,
        Some(Ok(number)) if number > 0 => number,
        Some(_) => {
            eprintln!("usage: surfnet [SLOT_MS]");
            return ExitCode::from(2);
        }
    };
    match run(slot_ms) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("surfnet: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(slot_ms: u64) -> Result<(), Box<dyn std::error::Error>> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let surfnet = runtime.block_on(
        Surfnet::builder()
            .offline(true)
            .block_production_mode(BlockProductionMode::Clock)
            .slot_time_ms(slot_ms)
            .start(),
    )?;
    let mut out = io::stdout();
    writeln!(
        out,
        "{{\"rpc_url\": \"{}\", \"ws_url\": \"{}\"}}",
        surfnet.rpc_url(),
        surfnet.ws_url()
    )?;
    out.flush()?;
    // Nothing else empties this channel, and every slot puts something into it.
    loop {
        match surfnet.events().recv()? {
            SimnetEvent::Aborted(reason) => return Err(reason.into()),
            SimnetEvent::Shutdown => return Err("its runloop ended".into()),
            _ => {}
        }
    }
}
