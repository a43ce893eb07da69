package discord

import (
	"bytes"
	"compress/zlib"
	"context"
	"encoding/json"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"

	"parley.internal/emulator/fake"
	"parley.internal/shared/retry"
)

// Connections of the gateway: https://discord.com/developers/docs/events/gateway

// Opcodes of the gateway.
// https://discord.com/developers/docs/topics/opcodes-and-status-codes#gateway-gateway-opcodes
const (
	opDispatch       = 0
	opHeartbeat      = 1
	opIdentify       = 2
	opPresence       = 3
	opVoiceState     = 4
	opResume         = 6
	opReconnect      = 7
	opRequestMembers = 8
	opInvalidSession = 9
	opHello          = 10
	opHeartbeatACK   = 11
)

// Close codes of the gateway.
// https://discord.com/developers/docs/topics/opcodes-and-status-codes#gateway-gateway-close-event-codes
const (
	CloseUnknownError         = 4000
	CloseUnknownOpcode        = 4001
	CloseDecodeError          = 4002
	CloseNotAuthenticated     = 4003
	CloseAuthenticationFailed = 4004
	CloseAlreadyAuthenticated = 4005
	CloseInvalidSeq           = 4007
	CloseRateLimited          = 4008
	CloseSessionTimedOut      = 4009
	CloseInvalidShard         = 4010
	CloseShardingRequired     = 4011
	CloseInvalidVersion       = 4012
	CloseInvalidIntents       = 4013
	CloseDisallowedIntents    = 4014
)

var closeReasons = map[int]string{
	CloseUnknownError:         "Unknown error.",
	CloseUnknownOpcode:        "Unknown opcode.",
	CloseDecodeError:          "Error while decoding payload.",
	CloseNotAuthenticated:     "Not authenticated.",
	CloseAuthenticationFailed: "Authentication failed.",
	CloseAlreadyAuthenticated: "Already authenticated.",
	CloseInvalidSeq:           "Invalid seq.",
	CloseRateLimited:          "You are being rate limited.",
	CloseSessionTimedOut:      "Session timed out.",
	CloseInvalidShard:         "Invalid shard.",
	CloseShardingRequired:     "Sharding required.",
	CloseInvalidVersion:       "Invalid API version.",
	CloseInvalidIntents:       "Invalid intent(s).",
	CloseDisallowedIntents:    "Disallowed intent(s).",
}

// maxCommand is the largest size of a client's message in bytes.
// https://discord.com/developers/docs/events/gateway#sending-events
const maxCommand = 4096

// gatewayConn is a WebSocket connection.
type gatewayConn struct {
	wire    *websocket.Conn
	cancel  context.CancelFunc
	version int

	// Guarded by the server's mutex.
	session  *session // nil until identified or resumed
	commands fake.History
	mute     bool // gets no heartbeat ACK

	*fake.Queue[frame]
	drained  chan struct{} // closed at the end of the writer
	compress atomic.Bool   // compress each message separately, as asked by identify

	// Used by the writer only: the stream of transport compression, or nil.
	stream  *zlib.Writer
	zlibbed bytes.Buffer
}

// frame is a queued message. delay delays the frame and all following frames.
type frame struct {
	data  []byte
	delay time.Duration
}

func (s *Server) serveGateway(w http.ResponseWriter, r *http.Request) {
	wire, err := websocket.Accept(w, r, &websocket.AcceptOptions{InsecureSkipVerify: true})
	if err != nil {
		return // Accept has answered the request
	}
	defer wire.CloseNow()
	wire.SetReadLimit(1 << 16)
	ctx, cancel := context.WithCancel(s.tasks.Context())
	defer cancel()
	c := &gatewayConn{wire: wire, cancel: cancel, Queue: fake.NewQueue[frame](cancel), drained: make(chan struct{})}
	if v, q := r.URL.Query().Get("v"), r.URL.Query(); v == "9" || v == "10" {
		c.version = map[string]int{"9": 9, "10": 10}[v]
		switch encoding, compress := q.Get("encoding"), q.Get("compress"); {
		case encoding != "" && encoding != "json", compress != "" && compress != "zlib-stream":
			// Unsupported encodings and compressions.
			c.Close(CloseDecodeError)
		case compress != "":
			c.stream = zlib.NewWriter(&c.zlibbed)
		}
	} else {
		c.Close(CloseInvalidVersion)
	}
	s.lock()
	s.conns[c] = true
	c.Push(frame{data: encode(payload{Op: opHello, Data: map[string]any{
		"heartbeat_interval": s.options.timing.Heartbeat.Milliseconds(),
	}})})
	s.unlock()

	var tasks sync.WaitGroup
	tasks.Go(func() { c.write(ctx) })
	alive := make(chan struct{}, 1)
	tasks.Go(func() { s.watch(ctx, c, alive) })
	ended := s.read(ctx, c, alive)
	if c.Closing() {
		<-c.drained
	}
	cancel()
	tasks.Wait()

	s.lock()
	defer s.unlock()
	delete(s.conns, c)
	// A client that closes with one of the normal codes ends its session.
	// https://discord.com/developers/docs/events/gateway#initiating-a-disconnect
	code := websocket.CloseStatus(ended)
	if ss := c.session; ss != nil && !c.Closing() && (code == websocket.StatusNormalClosure || code == websocket.StatusGoingAway) {
		s.end(ss)
	}
	s.detach(c)
}

// read handles the client's messages until the connection ends, and returns the error that ended the connection.
func (s *Server) read(ctx context.Context, c *gatewayConn, alive chan<- struct{}) error {
	for {
		kind, b, err := c.wire.Read(ctx)
		if err != nil {
			return err
		}
		if c.Closing() {
			continue // until the client closes too
		}
		var p struct {
			Op   *int            `json:"op"`
			Data json.RawMessage `json:"d"`
		}
		if kind != websocket.MessageText || len(b) > maxCommand || json.Unmarshal(b, &p) != nil || p.Op == nil {
			c.Close(CloseDecodeError)
			continue
		}
		if *p.Op == opHeartbeat {
			select {
			case alive <- struct{}{}:
			default:
			}
		}
		s.lock()
		s.command(c, *p.Op, p.Data)
		s.unlock()
	}
}

// command executes a command of the client.
func (s *Server) command(c *gatewayConn, op int, data json.RawMessage) {
	if !c.commands.Take(s.now(), s.options.limits.Commands) {
		c.Close(CloseRateLimited)
		return
	}
	switch op {
	case opHeartbeat:
		if !c.mute {
			c.Push(frame{data: encode(payload{Op: opHeartbeatACK})})
		}
	case opIdentify:
		if c.session != nil {
			c.Close(CloseAlreadyAuthenticated)
			return
		}
		s.identify(c, data)
	case opResume:
		if c.session != nil {
			c.Close(CloseAlreadyAuthenticated)
			return
		}
		s.resume(c, data)
	case opPresence, opVoiceState, opRequestMembers:
		if c.session == nil {
			c.Close(CloseNotAuthenticated)
			return
		}
		if op == opRequestMembers {
			s.requestMembers(c, data)
		}
	default:
		c.Close(CloseUnknownOpcode)
	}
}

// watch closes the connection if the client stops sending heartbeats. The session can be resumed: according to Discord,
// a late client is forced to resume. https://discord.com/developers/docs/events/gateway#heartbeat-interval
func (s *Server) watch(ctx context.Context, c *gatewayConn, alive <-chan struct{}) {
	patience := s.options.timing.Heartbeat * 3 / 2
	timer := time.NewTimer(patience)
	defer timer.Stop()
	for {
		select {
		case <-alive:
			timer.Reset(patience)
		case <-timer.C:
			c.Close(CloseUnknownError)
			return
		case <-ctx.Done():
			return
		}
	}
}

// invalid reports an invalid session to the client. The client may identify on the same connection.
// https://discord.com/developers/docs/events/gateway-events#invalid-session
func (c *gatewayConn) invalid(resumable bool) {
	c.Push(frame{data: encode(payload{Op: opInvalidSession, Data: resumable})})
}

// write sends the queued messages.
func (c *gatewayConn) write(ctx context.Context) {
	defer c.cancel()
	defer close(c.drained)
	for {
		select {
		case <-ctx.Done():
			return
		case <-c.Ready():
		}
		frames, last := c.Take()
		for _, f := range frames {
			if f.delay > 0 && retry.Sleep(ctx, f.delay) != nil {
				return
			}
			kind, b := c.encoded(f.data)
			if c.wire.Write(ctx, kind, b) != nil {
				return
			}
		}
		if last {
			code := c.Code()
			_ = c.wire.Close(websocket.StatusCode(code), closeReasons[code])
			return
		}
	}
}

// worthwhile is the least size of a separately compressed message, in bytes.
const worthwhile = 1 << 10

// encoded compresses a message as requested by the client.
// https://discord.com/developers/docs/events/gateway#encoding-and-compression
func (c *gatewayConn) encoded(b []byte) (websocket.MessageType, []byte) {
	// Both writers write to a bytes.Buffer and never fail.
	switch {
	case c.stream != nil:
		c.zlibbed.Reset()
		_, _ = c.stream.Write(b)
		_ = c.stream.Flush()
		return websocket.MessageBinary, c.zlibbed.Bytes()
	case c.compress.Load() && len(b) >= worthwhile:
		var out bytes.Buffer
		z := zlib.NewWriter(&out)
		_, _ = z.Write(b)
		_ = z.Close()
		return websocket.MessageBinary, out.Bytes()
	}
	return websocket.MessageText, b
}
