package trigger

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"parley.internal/shared/topology"
)

// oddPush is a body of a push with the documented result: the id and the data of its message, or no id if the request is
// refused. Pub/Sub sends a refused message again, and dead-letters it at last.
type oddPush struct{ name, body, id, data string }

func oddPushes() []oddPush {
	message := func(members string) string {
		return `{"message":{` + members + `},"subscription":"projects/p/subscriptions/enrichment"}`
	}
	all := []oddPush{
		{"nothing", "", "", ""},
		{"white space", " \n", "", ""},
		{"a text", `"hello"`, "", ""},
		{"a number", "7", "", ""},
		{"a list", `[` + pushBody + `]`, "", ""},
		{"null", "null", "", ""},
		{"a form", "message=hello", "", ""},
		{"half a body", pushBody[:len(pushBody)/2], "", ""},
		{"a second body", pushBody + pushBody, "", ""},
		{"a byte order mark", "\ufeff" + pushBody, "", ""},
		{"a NUL behind", pushBody + "\x00", "", ""},
		{"a message of null", `{"message":null}`, "", ""},
		{"a message in a list", `{"message":[]}`, "", ""},
		{"a message as a text", `{"message":"hello"}`, "", ""},
		{"another case", `{"Message":{"messageId":"m1"}}`, "", ""},
		{"no id", message(`"data":"aGk="`), "", ""},
		{"an empty id", message(`"messageId":"","data":"aGk="`), "", ""},
		{"an id of null", message(`"messageId":null`), "", ""},
		{"an id as a number", message(`"messageId":7`), "", ""},
		{"an id of a space", message(`"messageId":" "`), " ", ""},
		{"no data", message(`"messageId":"m1"`), "m1", ""},
		{"empty data", message(`"messageId":"m1","data":""`), "m1", ""},
		{"data of null", message(`"messageId":"m1","data":null`), "m1", ""},
		{"data that is not base64", message(`"messageId":"m1","data":"hello!"`), "", ""},
		{"data without padding", message(`"messageId":"m1","data":"aGk"`), "", ""},
		{"data of base64 for URLs", message(`"messageId":"m1","data":"_-8="`), "", ""},
		{"data as an object", message(`"messageId":"m1","data":{}`), "", ""},
		{"bytes as data", message(`"messageId":"m1","data":"/w=="`), "m1", "\xff"},
		{"a NUL as data", message(`"messageId":"m1","data":"AA=="`), "m1", "\x00"},
		{"attributes of null", message(`"messageId":"m1","attributes":null`), "m1", ""},
		{"attributes in a list", message(`"messageId":"m1","attributes":[]`), "", ""},
		{"an attribute as a number", message(`"messageId":"m1","attributes":{"a":1}`), "", ""},
		{"half an emoji in an attribute", message(`"messageId":"m1","attributes":{"a":"\ud83d"}`), "m1", ""},
		{"half an emoji in the name of an attribute", message(`"messageId":"m1","attributes":{"\ud83d":"a"}`), "m1", ""},
		{"half an emoji in the id", message(`"messageId":"m\ud83d"`), "m\ufffd", ""},
		{"invalid UTF-8 in an attribute", message("\"messageId\":\"m1\",\"attributes\":{\"a\":\"\xff\"}"), "m1", ""},
		{"a bad time", message(`"messageId":"m1","publishTime":"yesterday"`), "", ""},
		{"a time of null", message(`"messageId":"m1","publishTime":null`), "m1", ""},
		{"an attempt as a text", `{"message":{"messageId":"m1"},"deliveryAttempt":"3"}`, "", ""},
		{"a negative attempt", `{"message":{"messageId":"m1"},"deliveryAttempt":-3}`, "m1", ""},
		{"a huge attempt", `{"message":{"messageId":"m1"},"deliveryAttempt":99999999999999999999}`, "", ""},
		{"a subscription as a number", `{"message":{"messageId":"m1"},"subscription":7}`, "", ""},
		{"an unknown member", message(`"messageId":"m1","more":{"a":[1]}`), "m1", ""},
		{"a member twice", message(`"messageId":"m1","data":"aGk=","data":"aGk="`), "m1", "hi"},
	}
	for depth := 10; depth <= 20_000; depth *= 10 { // the decoder accepts 10,000 levels
		id := "m1"
		if depth > 9_000 {
			id = ""
		}
		all = append(all, oddPush{fmt.Sprint("nested ", depth), message(`"messageId":"m1","more":` + strings.Repeat("[", depth) + strings.Repeat("]", depth)), id, ""})
	}
	for _, n := range []int{1, 2, 3, 1000, 1 << 20} {
		data := strings.Repeat("x", n)
		all = append(all, oddPush{fmt.Sprint("data of ", n), message(`"messageId":"m1","data":"` + base64.StdEncoding.EncodeToString([]byte(data)) + `"`), "m1", data})
	}
	return all
}

func TestOddInputsInPushes(t *testing.T) {
	for _, tt := range oddPushes() {
		m, err := read(httptest.NewRequest(http.MethodPost, "/", strings.NewReader(tt.body)), topology.Prefix{})
		if _, refused := err.(*requestError); refused != (tt.id == "") || err != nil && !refused {
			t.Errorf("%s: %v; want the id %q", tt.name, err, tt.id)
			continue
		}
		if m.ID != tt.id || string(m.Data) != tt.data {
			t.Errorf("%s: %q with %d bytes; want %q with %d", tt.name, m.ID, len(m.Data), tt.id, len(tt.data))
		}
	}
}
