package event

import (
	"bytes"
	stdjson "encoding/json"
	"testing"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/go-cmp/cmp"
)

func TestReplaceHalfCharacters(t *testing.T) {
	for _, tt := range []struct{ in, want string }{
		{``, ``}, {`{}`, `{}`}, {`"\n"`, `"\n"`}, {`"\u0041"`, `"\u0041"`},
		{`"\ud83d"`, `"\ufffd"`}, {`"\uD83D"`, `"\ufffd"`}, {`"\ude00"`, `"\ufffd"`}, {`"a\ud83db"`, `"a\ufffdb"`},
		{`"\ud83d\ude00"`, `"\ud83d\ude00"`}, {`"\uD83D\uDE00\ud83d"`, `"\uD83D\uDE00\ufffd"`},
		{`"\ud83d\ud83d\ude00"`, `"\ufffd\ud83d\ude00"`}, {`"\ude00\ud83d"`, `"\ufffd\ufffd"`}, {`"\ud83d\n"`, `"\ufffd\n"`},
		{`"\ud83d\u0041"`, `"\ufffd\u0041"`}, {`"\\ud83d"`, `"\\ud83d"`}, {`"\\\ud83d"`, `"\\\ufffd"`}, {`"\ud83d\\ude00"`, `"\ufffd\\ude00"`},
		{`{"\ud83d":["\udfff",{"a":"\udbff"}]}`, `{"\ufffd":["\ufffd",{"a":"\ufffd"}]}`},
		{`"\ud83`, `"\ud83`}, {`\`, `\`}, {`"\u`, `"\u`}, {`"\uzzzz"`, `"\uzzzz"`}, {`"\ud83d\u"`, `"\ufffd\u"`}, {`"\u+d83"`, `"\u+d83"`},
	} {
		in := []byte(tt.in)
		if got := ReplaceHalfCharacters(in); string(got) != tt.want || string(in) != tt.in {
			t.Errorf("%s becomes %s; want %s; the input is %s now", tt.in, got, tt.want, in)
		}
	}
}

func FuzzReplaceHalfCharacters(f *testing.F) {
	for _, seed := range []string{`"\ud83d"`, `{"\udc00\ud800":"\ud83d\ude00"}`, `"\\\ud83d"`, `["\ud83d\u0041"]`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		in := bytes.Clone(data)
		got := ReplaceHalfCharacters(data)
		if !bytes.Equal(in, data) || len(got) != len(data) || !bytes.Equal(ReplaceHalfCharacters(got), got) {
			t.Fatalf("%s becomes %s", data, got)
		}
		var before, after any // encoding/json replaces halves by itself
		if err := json.Unmarshal(data, &before, jsontext.AllowInvalidUTF8(true)); err != nil || !stdjson.Valid(data) {
			return
		}
		if err := json.Unmarshal(got, &after, jsontext.AllowInvalidUTF8(true)); err != nil {
			t.Fatalf("%s is no JSON any more: %v", got, err)
		}
		if diff := cmp.Diff(before, after); diff != "" {
			t.Fatalf("%s: %s", data, diff)
		}
	})
}

// A program in another language may publish an event with half an emoji.
func TestDecodeReplacesHalfCharacters(t *testing.T) {
	e, err := Decode([]byte(`{"v":"2","source":"custom","correlationId":"c","type":"chat.message","message":{"text":"hi \ud83d"},
		"payload":{"\ude00":["\ud83d"]},"user":{"profile":{"a\ud83d":"\ud83d\ude00"}},"x":"\ud83d"}`))
	if err != nil {
		t.Fatal(err)
	}
	if e.Message.Text != "hi \ufffd" || string(e.Payload) != `{"\ufffd":["\ufffd"]}` || e.User.Profile["a\ufffd"] != "\U0001f600" {
		t.Errorf("%+v", e)
	}
	data, err := Encode(e)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := Decode(data); err != nil || again.Message.Text != e.Message.Text {
		t.Errorf("%v in %s", err, data)
	}
}
