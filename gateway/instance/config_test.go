package instance_test

import (
	"fmt"
	"strings"
	"testing"

	"parley.internal/gateway/instance"
	"parley.internal/shared/config"
)

func TestTrustedProxiesAreChecked(t *testing.T) {
	for value, ok := range map[string]bool{"-1": true, "0": true, "2": true, "10": true, "-2": false, "11": false, "x": false} {
		_, err := config.Load[instance.Config]([]string{"GOOGLE_CLOUD_PROJECT=p", "TRUSTED_PROXIES=" + value})
		if (err == nil) != ok || err != nil && !strings.Contains(err.Error(), "TRUSTED_PROXIES: ") {
			t.Errorf("%s: %v; want it valid: %v", value, err, ok)
		}
	}
}

func ExampleHTTP_Addr() {
	fmt.Println(instance.HTTP{Port: "8080"}.Addr())
	fmt.Println(instance.HTTP{Port: "8080", Listen: "127.0.0.1:0"}.Addr())
	// Output:
	// :8080
	// 127.0.0.1:0
}
