// The plugin's own network, empty, and the way out: sockets on its loopback interface, handed to the host.
// Whatever connects to them is served there; nothing here knows what may pass.

use crate::init;
use crate::plan::{self, Body, Records, egress, handle, report, step, word};
use crate::spawner::{Failure, Launch, failed};
use crate::sys::{self, Fd, nr, sys};

const AF_UNIX: usize = 1;
const AF_INET: usize = 2;
const AF_NETLINK: usize = 16;
const STREAM: usize = 1;
const DATAGRAM: usize = 2;
const RAW: usize = 3;
const LOOPBACK: [u8; 4] = [127, 0, 0, 1];
const ANY: [u8; 4] = [0; 4];
const QUEUE: usize = 128;

/// A network namespace takes the kernel longer than all other namespaces together, and nothing that pid 1
/// does before the end of its walls needs it. So a second process of our own, which shares pid 1's memory and
/// handles, makes it meanwhile on another processor, and has ended when pid 1 enters it.
pub struct Making {
    maker: isize,
}

#[repr(C, align(16))]
struct Stack([u8; 16 * 1024]);
static mut STACK: Stack = Stack([0; 16 * 1024]);

/// Handle of the namespace, or the negative errno. Written by the maker, read once it has ended.
static mut MADE: isize = 0;

/// Where pid 1 runs. Written before the maker begins.
static mut OCCUPIED: u32 = 0;

/// Begins, where the plan asks for a network of the plugin's own.
pub fn begin(config: &[u64; word::COUNT]) -> Result<Making, Failure> {
    if config[word::CLONE_FLAGS] & sys::CLONE_NEWNET == 0 {
        return Ok(Making { maker: 0 });
    }
    // SAFETY: nobody else runs in this memory yet.
    unsafe { OCCUPIED = sys::current_processor() };
    let args = sys::CloneArgs {
        flags: sys::CLONE_VM | sys::CLONE_FILES,
        stack: &raw mut STACK as u64,
        stack_size: core::mem::size_of::<Stack>() as u64,
        ..Default::default()
    };
    // SAFETY: nobody else uses this stack; the maker touches nothing of pid 1's but `MADE`.
    let maker = unsafe { sys::clone_onto(&args, core::ptr::null_mut(), make) };
    if maker < 0 { Err(failed(step::CLONE, 0, maker)) } else { Ok(Making { maker }) }
}

extern "C" fn make(_: *mut u8) -> ! {
    // The kernel likes to begin a process where its parent runs, which then waits for it after all.
    // SAFETY: pid 1 does not touch it any more.
    sys::leave_processor(unsafe { OCCUPIED });
    let mut made = sys!(nr::UNSHARE, sys::CLONE_NEWNET);
    if made >= 0 {
        // A socket knows its network (SIOCGSKNS, since Linux 4.10); /proc may be gone by now.
        const SIOCGSKNS: usize = 0x894c;
        made = match new_socket(AF_UNIX, DATAGRAM) {
            Ok(socket) => {
                let handle = sys!(nr::IOCTL, socket, SIOCGSKNS);
                sys::close(socket);
                handle
            }
            Err(errno) => errno,
        };
    }
    // SAFETY: pid 1 reads it only after this process has ended.
    unsafe { core::ptr::write_volatile(&raw mut MADE, made) };
    sys::exit(0)
}

impl Making {
    /// Waits until it is made, and enters it; once.
    pub fn enter(&mut self) -> Result<(), Failure> {
        let maker = core::mem::replace(&mut self.maker, 0);
        if maker == 0 {
            return Ok(());
        }
        // There is nothing else to do: it may have this processor as well.
        sys::share_processors(maker);
        // It has no signal to tell its end by (wait(2), __WALL).
        const ANY_CHILD: usize = 0x4000_0000;
        let mut status = 0i32;
        let mut ended = sys::EINTR;
        while ended == sys::EINTR {
            ended = sys!(nr::WAIT4, maker, &raw mut status, ANY_CHILD, 0);
        }
        if ended < 0 || status != 0 {
            return Err(failed(step::CLONE, 0, if ended < 0 { ended } else { sys::EPROTO }));
        }
        // SAFETY: the maker has ended.
        let made = unsafe { core::ptr::read_volatile(&raw const MADE) };
        if made < 0 {
            return Err(failed(step::CLONE, 0, made));
        }
        let entered = sys!(nr::SETNS, made, sys::CLONE_NEWNET);
        sys::close(made as Fd);
        if entered < 0 { Err(failed(step::CLONE, 0, entered)) } else { Ok(()) }
    }
}

/// Opens the way out, where the plan has one, and hands it over. Nothing of it stays in this process.
pub fn open_way_out(launch: &Launch<'_>) -> Result<(), Failure> {
    let mut is_up = false;
    let mut records = Records::new(launch.plan);
    while let Some((tag, body)) = records.next() {
        if tag != plan::TAG_EGRESS {
            continue;
        }
        let index = records.index;
        let mut body = Body(body);
        let (Some(purpose), Some(port)) = (body.u32(), body.u32()) else {
            return Err(failed(step::PLAN, index, sys::EINVAL));
        };
        let fail = |errno| failed(step::EGRESS, index, errno);
        if !is_up {
            raise_loopback().map_err(fail)?;
            lead_to_loopback(egress::PREFIX).map_err(fail)?;
            is_up = true;
        }
        let opened = match purpose {
            egress::PROXY => open(STREAM, LOOPBACK, port as u16),
            egress::NAMES => open(DATAGRAM, LOOPBACK, port as u16),
            egress::DIRECT => open(STREAM, ANY, port as u16),
            _ => Err(sys::EINVAL),
        };
        let socket = opened.map_err(fail)?;
        let sent = init::send_handle(launch.handles[handle::STATUS], report::EGRESS, purpose, socket);
        sys::close(socket);
        positive(sent).map_err(fail)?;
    }
    Ok(())
}

fn positive(result: isize) -> Result<(), isize> {
    if result < 0 { Err(result) } else { Ok(()) }
}

fn new_socket(family: usize, kind: usize) -> Result<Fd, isize> {
    let socket = sys!(nr::SOCKET, family, kind | sys::O_CLOEXEC, 0);
    positive(socket).map(|()| socket as Fd)
}

/// Runs `work` on a socket and closes it.
fn with_socket(
    family: usize,
    kind: usize,
    work: impl FnOnce(Fd) -> Result<(), isize>,
) -> Result<(), isize> {
    let socket = new_socket(family, kind)?;
    let done = work(socket);
    sys::close(socket);
    done
}

fn open(kind: usize, address: [u8; 4], port: u16) -> Result<Fd, isize> {
    let socket = new_socket(AF_INET, kind)?;
    // struct sockaddr_in: family in the machine's order, port and address in the network's.
    let mut name = [0u8; 16];
    name[0] = AF_INET as u8;
    name[2..4].copy_from_slice(&port.to_be_bytes());
    name[4..8].copy_from_slice(&address);
    let mut done = positive(sys!(nr::BIND, socket, name.as_ptr(), name.len()));
    if done.is_ok() && kind == STREAM {
        done = positive(sys!(nr::LISTEN, socket, QUEUE));
    }
    if let Err(errno) = done {
        sys::close(socket);
        return Err(errno);
    }
    Ok(socket)
}

/// `ip link set lo up` (netdevice(7)): struct ifreq is a name of 16 bytes and, here, flags of two.
fn raise_loopback() -> Result<(), isize> {
    const SIOCGIFFLAGS: usize = 0x8913;
    const SIOCSIFFLAGS: usize = 0x8914;
    const IFF_UP: u8 = 1;
    let mut request = [0u8; 40];
    request[..2].copy_from_slice(b"lo");
    with_socket(AF_INET, DATAGRAM, |socket| {
        positive(sys!(nr::IOCTL, socket, SIOCGIFFLAGS, request.as_mut_ptr()))?;
        request[16] |= IFF_UP;
        positive(sys!(nr::IOCTL, socket, SIOCSIFFLAGS, request.as_ptr()))
    })
}

/// `ip route add local ADDRESS/LENGTH dev lo` (rtnetlink(7)): these addresses are this network's own, as
/// 127.0.0.0/8 is.
fn lead_to_loopback((address, length): ([u8; 4], u8)) -> Result<(), isize> {
    const RTM_NEWROUTE: u8 = 24;
    const REQUEST_ACK: u8 = 1 | 4;
    const CREATE: u8 = 4; // of the second byte: 0x400
    const TABLE_LOCAL: u8 = 255;
    const PROTOCOL_STATIC: u8 = 4;
    const SCOPE_HOST: u8 = 254;
    const TYPE_LOCAL: u8 = 2;
    const DESTINATION: u8 = 1;
    const OUTPUT_INTERFACE: u8 = 4;
    // The loopback interface is the first of every network namespace.
    const LO: u8 = 1;
    // struct nlmsghdr (16 bytes), struct rtmsg (12), and two attributes of 8; in the machine's order,
    // which is little endian on every system that this is built for.
    let mut message = [0u8; 44];
    message[0] = 44;
    message[4] = RTM_NEWROUTE;
    message[6] = REQUEST_ACK;
    message[7] = CREATE;
    message[8] = 1;
    message[16..24].copy_from_slice(&[
        AF_INET as u8, length, 0, 0, TABLE_LOCAL, PROTOCOL_STATIC, SCOPE_HOST, TYPE_LOCAL,
    ]);
    message[28..32].copy_from_slice(&[8, 0, DESTINATION, 0]);
    message[32..36].copy_from_slice(&address);
    message[36..40].copy_from_slice(&[8, 0, OUTPUT_INTERFACE, 0]);
    message[40] = LO;
    with_socket(AF_NETLINK, RAW, |socket| {
        positive(sys::write(socket, &message))?;
        // The kernel answers before write returns: header, then struct nlmsgerr, whose first word is 0 or
        // the negative errno.
        let mut answer = [0u8; 128];
        let read = sys::read(socket, &mut answer);
        positive(read)?;
        if read < 20 {
            return Err(sys::EPROTO);
        }
        let errno = i32::from_le_bytes([answer[16], answer[17], answer[18], answer[19]]);
        positive(errno as isize)
    })
}
