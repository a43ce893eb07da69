package websocket

import (
	"bufio"
	"encoding/binary"
	"errors"
	"net"
	"net/http"
	"sync/atomic"

	gorilla "github.com/gorilla/websocket"
)

// minFragment is the minimum size of a fragment that is not counted as a frame of its own, in bytes. Clients with a small
// write buffer send long messages in fragments.
const minFragment = 512

var errFlood = errors.New("flood of frames")

// frameCounter is a network connection that counts the client's frames without a message: control frames, and fragments
// shorter than minFragment except the last fragment of a message. The WebSocket library handles all these frames itself.
type frameCounter struct {
	net.Conn
	allow   func(n int) bool // counts n frames, or reports a flood; set before the first read
	flooded bool             // after a flood; only for the reader
	pinged  atomic.Bool      // the gateway has sent a ping; one pong is not counted

	header [14]byte // the begun header of a frame
	n      int      // number of bytes in header
	skip   uint64   // rest of the current frame's content
}

// Read reads from the network. After a flood, it returns errFlood.
func (f *frameCounter) Read(p []byte) (int, error) {
	if f.flooded {
		return 0, errFlood
	}
	n, err := f.Conn.Read(p)
	if extra := f.scan(p[:n]); extra > 0 && !f.allow(extra) {
		f.flooded = true
		return 0, errFlood
	}
	return n, err
}

// scan parses the frame headers in data (RFC 6455, section 5.2), and returns the number of counted frames.
func (f *frameCounter) scan(data []byte) (counted int) {
	for len(data) > 0 {
		if f.skip > 0 {
			n := min(f.skip, uint64(len(data)))
			data, f.skip = data[n:], f.skip-n
			continue
		}
		f.header[f.n] = data[0]
		data, f.n = data[1:], f.n+1
		size, ok := parseHeader(f.header[:f.n])
		if !ok {
			continue
		}
		if f.counts(f.header[0], size) {
			counted++
		}
		f.n, f.skip = 0, size
	}
	return counted
}

// counts reports whether a frame counts. first is the first byte of the header.
func (f *frameCounter) counts(first byte, size uint64) bool {
	switch final := first&0x80 != 0; first & 0xf {
	case gorilla.CloseMessage:
		return false
	case gorilla.PongMessage:
		return !f.pinged.CompareAndSwap(true, false)
	case gorilla.PingMessage:
		return true
	default:
		return !final && size < minFragment
	}
}

// parseHeader returns the size of a frame's content. ok is false if the header is incomplete.
func parseHeader(b []byte) (size uint64, ok bool) {
	if len(b) < 2 {
		return 0, false
	}
	length := 2
	if b[1]&0x80 != 0 {
		length += 4 // the masking key
	}
	size = uint64(b[1] & 0x7f)
	switch size {
	case 126:
		length += 2
	case 127:
		length += 8
	}
	if len(b) < length {
		return 0, false
	}
	switch size {
	case 126:
		size = uint64(binary.BigEndian.Uint16(b[2:]))
	case 127:
		size = binary.BigEndian.Uint64(b[2:])
	}
	return size, true
}

// countedWriter is a response that is upgraded to a connection with a frameCounter.
type countedWriter struct{ http.ResponseWriter }

// Hijack returns the network connection of the request.
func (w countedWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, buffered, err := http.NewResponseController(w.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	return &frameCounter{Conn: conn}, buffered, nil
}
