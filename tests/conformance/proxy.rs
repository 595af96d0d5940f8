//! Passes requests on with a token: the suite has no way to send one.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// Longest head of a request.
const MAX_HEAD: usize = 64 << 10;

/// Starts one in front of `server`; it ends with the runtime.
pub(crate) async fn start(server: SocketAddr, token: String) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let token = token.clone();
            // Who hangs up is not of interest.
            tokio::spawn(async move { drop(pass(client, server, &token).await) });
        }
    });
    address
}

/// One request for each connection, so that only its head has to be understood.
async fn pass(mut client: TcpStream, server: SocketAddr, token: &str) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.windows(4).any(|end| end == b"\r\n\r\n") && head.len() < MAX_HEAD {
        if client.read_buf(&mut head).await? == 0 {
            return Ok(());
        }
    }
    let first_line = head.windows(2).position(|end| end == b"\r\n").map_or(0, |at| at + 2);
    let (line, rest) = head.split_at(first_line);
    let mut server = TcpStream::connect(server).await?;
    server.set_nodelay(true)?;
    client.set_nodelay(true)?;
    server.write_all(line).await?;
    server.write_all(format!("Authorization: Bearer {token}\r\n").as_bytes()).await?;
    let rest = String::from_utf8_lossy(rest);
    let once = rest.replacen("onnection: keep-alive\r\n", "onnection: close\r\n", 1);
    server.write_all(once.as_bytes()).await?;
    tokio::io::copy_bidirectional(&mut client, &mut server).await?;
    Ok(())
}
