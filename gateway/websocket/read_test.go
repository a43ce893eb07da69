package websocket

import (
	"bytes"
	"compress/flate"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"testing"
	"time"

	gorilla "github.com/gorilla/websocket"
)

// clientFrame encodes a frame of a client with an arbitrary first byte.
func clientFrame(first byte, content string) []byte {
	b := []byte{first}
	switch n := len(content); {
	case n < 126:
		b = append(b, byte(n)|0x80)
	case n < 1<<16:
		b = binary.BigEndian.AppendUint16(append(b, 126|0x80), uint16(n))
	default:
		b = binary.BigEndian.AppendUint64(append(b, 127|0x80), uint64(n))
	}
	b = append(b, 0, 0, 0, 0) // a masking key of zeros
	return append(b, content...)
}

const (
	text, continuation, ping, pong = 0x01, 0x00, 0x89, 0x8a // first bytes; only control frames are final
	final, compressed              = 0x80, 0x40
)

// writeRaw writes bytes to the network. It may fail, because the connection may end.
func (c *client) writeRaw(b []byte) error {
	_, err := c.NetConn().Write(b)
	return err
}

func TestFramesWithoutAMessageCountAsAFlood(t *testing.T) {
	for name, frames := range map[string][]byte{
		"pings":            clientFrame(ping, ""),
		"pings with data":  clientFrame(ping, strings.Repeat("x", 125)),
		"pongs":            clientFrame(pong, ""),
		"empty fragments":  clientFrame(continuation, ""),
		"short fragments":  clientFrame(continuation, " "),
		"mixed":            append(clientFrame(continuation, ""), clientFrame(ping, "x")...),
		"empty messages":   clientFrame(text|final, ""),
		"short compressed": clientFrame(continuation, "x"),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t, func(c *Config) { c.Compression = name == "short compressed" })
			c := f.dial("1")
			first := clientFrame(text, "{") // the beginning of a message
			if name == "empty messages" {
				first = nil
			}
			go func() {
				c.writeRaw(first)
				for range 100_000 {
					if c.writeRaw(frames) != nil {
						return
					}
				}
			}()
			if code := c.closeCode(); code != CloseFlood {
				t.Errorf("closed with %d; want %d", code, CloseFlood)
			}
			eventually(t, "counted", func() bool { return count(t, f.metrics.closed.WithLabelValues("4003")) == 1 })
		})
	}
}

func TestFramesWithoutAMessageCountAgainstTheRate(t *testing.T) {
	for name, b := range map[string][]byte{
		"pings":     bytes.Repeat(clientFrame(ping, ""), 20),
		"pongs":     bytes.Repeat(clientFrame(pong, ""), 20),
		"fragments": append(append(clientFrame(text, "{"), bytes.Repeat(clientFrame(continuation, ""), 20)...), clientFrame(continuation|final, "}")...),
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, func(c *Config) { c.Burst, c.Rate = 20, 0.1 })
			c := f.dial("1")
			if err := c.writeRaw(b); err != nil {
				t.Fatal(err)
			}
			c.sendText(`{"type":"room.join","payload":{"room":"a"},"metadata":{"id":"7"}}`)
			for {
				r := c.next()
				if r.Payload["id"] != "7" && r.Type == TypeError {
					continue // the message made of fragments
				}
				if r.code() != ErrRate {
					t.Errorf("got %+v; want %s", r, ErrRate)
				}
				break
			}
		})
	}
}

func TestUsualClientsDoNotCountAsAFlood(t *testing.T) {
	f := newFixture(t, func(c *Config) { c.Burst, c.Rate, c.PingInterval = 1, 0.001, 300*time.Millisecond })
	c := f.dial("1") // uses one frame
	// answers many pings, and sends a long message in fragments
	pings := 0
	enough, pong := errors.New("enough"), c.PingHandler()
	c.SetPingHandler(func(data string) error {
		if pings++; pings == floodFactor+4 {
			return enough
		}
		return pong(data)
	})
	if _, _, err := c.ReadMessage(); !errors.Is(err, enough) {
		t.Fatalf("after %d pings: %v", pings, err)
	}
	b := clientFrame(text, `{"type":"poll.vote","payload":{"x":"`)
	for range 50 {
		b = append(b, clientFrame(continuation, strings.Repeat("x", minFragment))...)
	}
	b = append(b, clientFrame(continuation|final, `"}}`)...)
	if err := c.writeRaw(b); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it was read", func() bool { return count(t, f.metrics.framesIn.WithLabelValues("other")) == 1 })
	if f.connections() != 1 {
		t.Error("the connection is closed")
	}
}

func TestFrameCounterParsesHeadersAcrossReads(t *testing.T) {
	var stream []byte
	want := 0
	random := rand.New(rand.NewPCG(1, 2))
	for range 500 {
		size := []int{0, 1, 125, 126, minFragment - 1, minFragment, 70_000}[random.IntN(7)]
		first := []byte{text, text | final, continuation, continuation | final, ping, pong, 0x88}[random.IntN(7)]
		switch {
		case first == ping || first == pong, first&final == 0 && size < minFragment:
			want++
		}
		stream = append(stream, clientFrame(first, strings.Repeat("\xff", size))...)
	}
	f := &frameCounter{}
	got := 0
	for len(stream) > 0 {
		n := min(len(stream), 1+random.IntN(5000))
		if random.IntN(2) == 0 {
			n = 1
		}
		got += f.scan(stream[:n])
		stream = stream[n:]
	}
	if got != want {
		t.Errorf("counted %d; want %d", got, want)
	}
}

// dialCompressed connects a client that may compress.
func (f *fixture) dialCompressed() *client {
	f.t.Helper()
	d := gorilla.Dialer{EnableCompression: true}
	conn, resp, err := d.Dial("ws"+strings.TrimPrefix(f.http.URL, "http")+Path, http.Header{"Authorization": {"Bearer token-1"}})
	if err != nil {
		f.t.Fatal(err)
	}
	if !strings.Contains(resp.Header.Get("Sec-WebSocket-Extensions"), "permessage-deflate") {
		f.t.Fatal("no compression")
	}
	f.t.Cleanup(func() { conn.Close() })
	c := &client{conn, f.t}
	c.next() // ready
	return c
}

// deflate compresses n spaces after a beginning, as a message (RFC 7692, section 7.2.1).
func deflate(t *testing.T, beginning string, n int) string {
	t.Helper()
	var b bytes.Buffer
	w, err := flate.NewWriter(&b, flate.BestCompression)
	if err != nil {
		t.Fatal(err)
	}
	io.WriteString(w, beginning)
	for spaces := strings.Repeat(" ", 1<<20); n > 0; n -= len(spaces) {
		io.WriteString(w, spaces[:min(n, len(spaces))])
	}
	w.Flush()
	return strings.TrimSuffix(b.String(), "\x00\x00\xff\xff")
}

func TestInflatingIsBounded(t *testing.T) {
	const limit = 64 << 10
	for _, test := range []struct {
		name  string
		size  int
		code  ErrorCode
		close CloseCode
	}{
		{"within the limit", limit - 100, ErrUnknownType, 0},
		{"longer", 2 * limit, ErrTooLarge, 0},
		{"too long for skipping", 64 << 20, "", CloseTooBig},
	} {
		t.Run(test.name, func(t *testing.T) {
			message := deflate(t, `{"type":"chat.x"}`, test.size) // before connecting: a slow machine needs seconds
			f := newFixture(t, func(c *Config) { c.Compression, c.MaxFrame = true, limit })
			c := f.dialCompressed()
			if len(message) > limit*skipFactor {
				t.Fatalf("%d bytes on the network", len(message))
			}
			if err := c.writeRaw(clientFrame(text|final|compressed, message)); err != nil {
				t.Fatal(err)
			}
			if test.close != 0 {
				if code := c.closeCode(); code != test.close {
					t.Errorf("closed with %d; want %d", code, test.close)
				}
				return
			}
			if r := c.next(); r.code() != test.code {
				t.Errorf("got %+v; want %s", r, test.code)
			}
			c.join("works") // the next frame is read from its beginning
		})
	}
}

// inflating counts the inflated bytes read.
type inflating struct{ read int }

func (r *inflating) Read(p []byte) (int, error) {
	r.read += len(p)
	return len(p), nil
}

func TestReadFrameStopsAtTheLimit(t *testing.T) {
	r := &inflating{}
	if _, err := readFrame(nil, r, 1000); !errors.Is(err, errUnskippable) {
		t.Errorf("readFrame = %v", err)
	}
	if r.read > 1000*(skipFactor+1) {
		t.Errorf("%d bytes were inflated", r.read)
	}
}
