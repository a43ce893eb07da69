// Package port finds ports for listeners that are opened later: by another process, or again after they were closed.
package port

import (
	"fmt"
	"math/rand/v2"
	"net"
)

// The ports that are given out are below those that systems hand out to outgoing connections, and to listeners that leave
// the choice to them: by one of these it could be taken meanwhile. And they are above those that the emulator's gateways
// have by default, which listen later.
const first, last = 9000, 15000

// Free finds a loopback address on which nobody listens.
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
