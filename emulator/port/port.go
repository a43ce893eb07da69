// Package port finds free ports for listeners opened later, by a child process or after a restart. Start with [Free]. The
// package must not import packages of this module. The tests of packages google, soak and stack cover the package.
package port

import (
	"fmt"
	"math/rand/v2"
	"net"
)

// The range of the ports lies below the ephemeral ports of operating systems: an outgoing connection could take such a
// port before the listener opens. The range lies above the default ports of the emulator's gateways, opened later too.
const first, last = 9000, 15000

// Free returns a loopback address, host:port, without a listener. Free fails after 100 busy ports.
func Free() (addr string, err error) {
	for range 100 {
		addr = fmt.Sprintf("127.0.0.1:%d", first+rand.IntN(last-first))
		var lis net.Listener
		if lis, err = net.Listen("tcp", addr); err == nil {
			return addr, lis.Close()
		}
	}
	return "", fmt.Errorf("find a free port: %w", err)
}
