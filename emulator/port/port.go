// Package port finds free ports for listeners opened later, by a child process or after a restart. Start with [Free]. The
// package must not import packages of this module.
package port

import (
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
)

// The range of the ports lies below the ephemeral ports of operating systems: an outgoing connection could take such a
// port before the listener opens. The range lies above the default ports of the emulator's gateways, opened later too.
const first, last = 9000, 15000

// reserved holds the reservations of this process. A reservation of a TCP port is a UDP socket on the port of the same
// number. The system closes the sockets when the process ends.
var reserved struct {
	mu      sync.Mutex
	sockets []net.PacketConn
}

// Free returns a loopback address, host:port, without a TCP listener. No other call of Free, in any process, returns the
// same address until this process ends: otherwise two processes could start a listener each, and the clients of one would
// reach the other. The address needs one file descriptor of this process. Free fails after 100 busy ports. It is safe for
// concurrent use.
func Free() (addr string, err error) {
	for range 100 {
		addr = fmt.Sprintf("127.0.0.1:%d", first+rand.IntN(last-first))
		if err = reserve(addr); err == nil {
			return addr, nil
		}
	}
	return "", fmt.Errorf("find a free port: %w", err)
}

func reserve(addr string) error {
	socket, err := net.ListenPacket("udp", addr)
	if err != nil {
		return err
	}
	lis, err := net.Listen("tcp", addr)
	if err == nil {
		err = lis.Close()
	}
	if err != nil {
		socket.Close()
		return err
	}
	reserved.mu.Lock()
	defer reserved.mu.Unlock()
	reserved.sockets = append(reserved.sockets, socket)
	return nil
}
