package provider

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/hashicorp/terraform-plugin-go/tfprotov5"
	"github.com/hashicorp/terraform-plugin-go/tftypes"

	"parley.internal/terraform/check/schema"
)

// provider serves Terraform's plugin protocol from a schema. Functions, ephemeral resources and imports are not
// implemented: the schema has none, so Terraform does not call their methods.
type provider struct {
	tfprotov5.ProviderServer // nil; holds the methods that are not implemented

	schema *schema.Provider

	// compute invents the value of a computed attribute of a resource. "" means no particular value.
	compute func(config map[string]string, typeName string, path []string, object map[string]tftypes.Value) string
	// deny returns an error if the provider's arguments do not allow this type of resource.
	deny func(config map[string]string, typeName string) error
	// refuse returns an error if the resource can't be deleted.
	refuse func(typeName string, object map[string]tftypes.Value) error
	// read executes a data source and returns its computed attributes.
	read func(typeName string, object map[string]tftypes.Value) (map[string]any, error)
}

// capabilities lets Terraform keep the schema of the first process for all later processes of the same run.
var capabilities = &tfprotov5.ServerCapabilities{GetProviderSchemaOptional: true}

func (p *provider) GetMetadata(context.Context, *tfprotov5.GetMetadataRequest) (*tfprotov5.GetMetadataResponse, error) {
	r := &tfprotov5.GetMetadataResponse{ServerCapabilities: capabilities}
	for name := range p.schema.Resources {
		r.Resources = append(r.Resources, tfprotov5.ResourceMetadata{TypeName: name})
	}
	for name := range p.schema.DataSources {
		r.DataSources = append(r.DataSources, tfprotov5.DataSourceMetadata{TypeName: name})
	}
	return r, nil
}

func (p *provider) GetProviderSchema(context.Context, *tfprotov5.GetProviderSchemaRequest) (*tfprotov5.GetProviderSchemaResponse, error) {
	r := &tfprotov5.GetProviderSchemaResponse{
		ServerCapabilities: capabilities,
		ResourceSchemas:    map[string]*tfprotov5.Schema{}, DataSourceSchemas: map[string]*tfprotov5.Schema{},
	}
	config, err := p.schema.Config.Protocol()
	if err != nil {
		return nil, err
	}
	r.Provider = &tfprotov5.Schema{Block: config}
	for from, to := range map[*map[string]*schema.Block]map[string]*tfprotov5.Schema{
		&p.schema.Resources: r.ResourceSchemas, &p.schema.DataSources: r.DataSourceSchemas,
	} {
		for name, b := range *from {
			block, err := b.Protocol()
			if err != nil {
				return nil, fmt.Errorf("%s: %w", name, err)
			}
			to[name] = &tfprotov5.Schema{Block: block}
		}
	}
	return r, nil
}

func (p *provider) GetResourceIdentitySchemas(context.Context, *tfprotov5.GetResourceIdentitySchemasRequest) (*tfprotov5.GetResourceIdentitySchemasResponse, error) {
	return &tfprotov5.GetResourceIdentitySchemasResponse{}, nil
}

func (p *provider) PrepareProviderConfig(_ context.Context, r *tfprotov5.PrepareProviderConfigRequest) (*tfprotov5.PrepareProviderConfigResponse, error) {
	return &tfprotov5.PrepareProviderConfigResponse{PreparedConfig: r.Config}, nil
}

func (p *provider) ConfigureProvider(ctx context.Context, r *tfprotov5.ConfigureProviderRequest) (*tfprotov5.ConfigureProviderResponse, error) {
	object, _, err := decode(p.schema.Config, r.Config)
	if err != nil {
		return nil, err
	}
	config := map[string]string{}
	for name, v := range object {
		if s := text(object, name); s != "" {
			config[name] = s
		}
		if v.Equal(tftypes.NewValue(tftypes.Bool, true)) {
			config[name] = "true"
		}
	}
	connectionOf(ctx).config = config // Terraform waits for the answer before any other request
	return &tfprotov5.ConfigureProviderResponse{}, nil
}

func (p *provider) StopProvider(context.Context, *tfprotov5.StopProviderRequest) (*tfprotov5.StopProviderResponse, error) {
	return &tfprotov5.StopProviderResponse{}, nil
}

func (p *provider) ValidateResourceTypeConfig(_ context.Context, r *tfprotov5.ValidateResourceTypeConfigRequest) (*tfprotov5.ValidateResourceTypeConfigResponse, error) {
	refused, err := unconfigurable(p.schema.Resources[r.TypeName], r.Config)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", r.TypeName, err)
	}
	return &tfprotov5.ValidateResourceTypeConfigResponse{Diagnostics: refused}, nil
}

func (p *provider) ValidateDataSourceConfig(_ context.Context, r *tfprotov5.ValidateDataSourceConfigRequest) (*tfprotov5.ValidateDataSourceConfigResponse, error) {
	refused, err := unconfigurable(p.schema.DataSources[r.TypeName], r.Config)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", r.TypeName, err)
	}
	return &tfprotov5.ValidateDataSourceConfigResponse{Diagnostics: refused}, nil
}

// unconfigurable reports configured values of attributes set only by the provider. Terraform itself checks the
// rest of the schema.
func unconfigurable(b *schema.Block, config *tfprotov5.DynamicValue) ([]*tfprotov5.Diagnostic, error) {
	object, _, err := decode(b, config)
	if err != nil {
		return nil, err
	}
	var refused []*tfprotov5.Diagnostic
	_, err = complete(b, object, nil, func(path []string, _ string, a schema.Attribute, v tftypes.Value, _ tftypes.Type) (tftypes.Value, error) {
		if a.Computed && !a.Optional && !v.IsNull() {
			refused = append(refused, diagnose(fmt.Errorf("can't configure a value for %q: its value will be decided automatically", strings.Join(path, ".")))...)
		}
		return v, nil
	})
	return refused, err
}

func (p *provider) UpgradeResourceState(_ context.Context, r *tfprotov5.UpgradeResourceStateRequest) (*tfprotov5.UpgradeResourceStateResponse, error) {
	t, err := p.schema.Resources[r.TypeName].Type()
	if err != nil {
		return nil, err
	}
	v, err := r.RawState.Unmarshal(t)
	if err != nil {
		return nil, fmt.Errorf("%s: read the state: %w", r.TypeName, err)
	}
	state, err := tfprotov5.NewDynamicValue(t, v)
	if err != nil {
		return nil, err
	}
	return &tfprotov5.UpgradeResourceStateResponse{UpgradedState: &state}, nil
}

func (p *provider) ReadResource(_ context.Context, r *tfprotov5.ReadResourceRequest) (*tfprotov5.ReadResourceResponse, error) {
	return &tfprotov5.ReadResourceResponse{NewState: r.CurrentState, Private: r.Private}, nil
}

func (p *provider) PlanResourceChange(ctx context.Context, r *tfprotov5.PlanResourceChangeRequest) (*tfprotov5.PlanResourceChangeResponse, error) {
	b := p.schema.Resources[r.TypeName]
	object, t, err := decode(b, r.ProposedNewState)
	if err != nil {
		return nil, err
	}
	if object == nil { // a deletion
		return &tfprotov5.PlanResourceChangeResponse{PlannedState: r.ProposedNewState}, nil
	}
	planned, err := complete(b, object, nil, func(path []string, name string, a schema.Attribute, v tftypes.Value, t tftypes.Type) (tftypes.Value, error) {
		if !v.IsNull() || !a.Computed {
			return v, nil
		}
		// a plan already knows the project and the region of the provider
		if s := connectionOf(ctx).config[name]; len(path) == 1 && (name == "project" || name == "region") && s != "" {
			return tftypes.NewValue(t, s), nil
		}
		return tftypes.NewValue(t, tftypes.UnknownValue), nil
	})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", r.TypeName, err)
	}
	state, err := tfprotov5.NewDynamicValue(t, tftypes.NewValue(t, planned))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", r.TypeName, err)
	}
	return &tfprotov5.PlanResourceChangeResponse{PlannedState: &state}, nil
}

func (p *provider) ApplyResourceChange(ctx context.Context, r *tfprotov5.ApplyResourceChangeRequest) (*tfprotov5.ApplyResourceChangeResponse, error) {
	b := p.schema.Resources[r.TypeName]
	object, t, err := decode(b, r.PlannedState)
	if err != nil {
		return nil, err
	}
	if object == nil { // a deletion
		prior, _, err := decode(b, r.PriorState)
		if err != nil {
			return nil, err
		}
		if p.refuse != nil {
			if err := p.refuse(r.TypeName, prior); err != nil {
				return &tfprotov5.ApplyResourceChangeResponse{NewState: r.PriorState, Diagnostics: diagnose(err)}, nil
			}
		}
		return &tfprotov5.ApplyResourceChangeResponse{NewState: r.PlannedState}, nil
	}
	if p.deny != nil {
		if err := p.deny(connectionOf(ctx).config, r.TypeName); err != nil {
			return &tfprotov5.ApplyResourceChangeResponse{NewState: r.PriorState, Diagnostics: diagnose(err)}, nil
		}
	}
	state, err := p.invent(ctx, b, t, r.TypeName, object)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", r.TypeName, err)
	}
	return &tfprotov5.ApplyResourceChangeResponse{NewState: state}, nil
}

func (p *provider) ReadDataSource(ctx context.Context, r *tfprotov5.ReadDataSourceRequest) (*tfprotov5.ReadDataSourceResponse, error) {
	b := p.schema.DataSources[r.TypeName]
	object, t, err := decode(b, r.Config)
	if err != nil {
		return nil, err
	}
	if p.read != nil {
		computed, err := p.read(r.TypeName, object)
		if err != nil {
			return &tfprotov5.ReadDataSourceResponse{Diagnostics: diagnose(err)}, nil
		}
		for name, v := range computed {
			object[name] = tftypes.NewValue(t.AttributeTypes[name], v)
		}
	}
	state, err := p.invent(ctx, b, t, r.TypeName, object)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", r.TypeName, err)
	}
	return &tfprotov5.ReadDataSourceResponse{State: state}, nil
}

// invent sets every computed attribute that has no value yet.
func (p *provider) invent(ctx context.Context, b *schema.Block, t tftypes.Object, typeName string, object map[string]tftypes.Value) (*tfprotov5.DynamicValue, error) {
	whole, err := complete(b, object, nil, func(path []string, name string, a schema.Attribute, v tftypes.Value, t tftypes.Type) (tftypes.Value, error) {
		if !a.Computed || v.IsKnown() && !v.IsNull() {
			return v, nil
		}
		switch {
		case t.Is(tftypes.String):
			s := ""
			if p.compute != nil {
				s = p.compute(connectionOf(ctx).config, typeName, path, object)
			}
			return tftypes.NewValue(t, s), nil
		case t.Is(tftypes.Number):
			return tftypes.NewValue(t, 1), nil
		case t.Is(tftypes.Bool):
			return tftypes.NewValue(t, false), nil
		case t.Is(tftypes.Map{}):
			return tftypes.NewValue(t, map[string]tftypes.Value{}), nil
		default:
			return tftypes.NewValue(t, []tftypes.Value{}), nil
		}
	})
	if err != nil {
		return nil, err
	}
	state, err := tfprotov5.NewDynamicValue(t, tftypes.NewValue(t, whole))
	if err != nil {
		return nil, err
	}
	return &state, nil
}

// complete returns a copy of an object, with every attribute replaced by the result of fill, also in nested
// blocks. path is the path of an attribute, beginning at the resource.
func complete(b *schema.Block, object map[string]tftypes.Value, at []string,
	fill func(path []string, name string, a schema.Attribute, v tftypes.Value, t tftypes.Type) (tftypes.Value, error),
) (map[string]tftypes.Value, error) {
	out := make(map[string]tftypes.Value, len(object))
	for name, v := range object {
		path := append(append([]string(nil), at...), name)
		if a, ok := b.Attributes[name]; ok {
			t, err := a.Type.Value()
			if err != nil {
				return nil, err
			}
			if out[name], err = fill(path, name, a, v, t); err != nil {
				return nil, err
			}
			continue
		}
		n, ok := b.Blocks[name]
		if !ok {
			return nil, fmt.Errorf("%v is not in the schema", path)
		}
		if !v.IsKnown() || v.IsNull() {
			out[name] = v
			continue
		}
		inner, err := n.Block.Type()
		if err != nil {
			return nil, err
		}
		one := func(v tftypes.Value) (tftypes.Value, error) {
			if !v.IsKnown() || v.IsNull() {
				return v, nil
			}
			var o map[string]tftypes.Value
			if err := v.As(&o); err != nil {
				return v, err
			}
			o, err := complete(n.Block, o, path, fill)
			if err != nil {
				return v, err
			}
			return tftypes.NewValue(inner, o), nil
		}
		if n.Nesting == "single" {
			if out[name], err = one(v); err != nil {
				return nil, err
			}
			continue
		}
		var items []tftypes.Value
		if err := v.As(&items); err != nil {
			return nil, err
		}
		for i := range items {
			if items[i], err = one(items[i]); err != nil {
				return nil, err
			}
		}
		out[name] = tftypes.NewValue(v.Type(), items)
	}
	return out, nil
}

// decode reads an object of a block's type. The object is nil for a null value.
func decode(b *schema.Block, d *tfprotov5.DynamicValue) (map[string]tftypes.Value, tftypes.Object, error) {
	if b == nil {
		return nil, tftypes.Object{}, errors.New("no such type")
	}
	t, err := b.Type()
	if err != nil {
		return nil, t, err
	}
	v, err := d.Unmarshal(t)
	if err != nil {
		return nil, t, fmt.Errorf("read a value: %w", err)
	}
	if v.IsNull() {
		return nil, t, nil
	}
	var object map[string]tftypes.Value
	return object, t, v.As(&object)
}

// text returns the value of a string attribute, or "" for a missing, unknown or null value.
func text(object map[string]tftypes.Value, name string) string {
	v, ok := object[name]
	if !ok || !v.IsKnown() || v.IsNull() || !v.Type().Is(tftypes.String) {
		return ""
	}
	var s string
	if err := v.As(&s); err != nil {
		return ""
	}
	return s
}

func diagnose(err error) []*tfprotov5.Diagnostic {
	if err == nil {
		return nil
	}
	return []*tfprotov5.Diagnostic{{Severity: tfprotov5.DiagnosticSeverityError, Summary: err.Error()}}
}
