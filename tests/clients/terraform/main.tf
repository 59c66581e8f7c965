# One of each App Mesh resource, as a team would write them, with the provider's own account lookup on.

terraform {
  required_providers {
    aws = { source = "hashicorp/aws" }
  }
}

variable "endpoint" { type = string }
variable "canary_weight" { type = number }
variable "team" { type = string }

provider "aws" {
  region                  = "eu-north-1"
  skip_metadata_api_check = true
  skip_region_validation  = true

  endpoints {
    appmesh = var.endpoint
    sts     = var.endpoint
  }

  default_tags {
    tags = { managed-by = "terraform" }
  }
}

data "aws_caller_identity" "me" {}

resource "aws_appmesh_mesh" "shop" {
  name = "shop"
  spec {
    egress_filter { type = "ALLOW_ALL" }
    service_discovery { ip_preference = "IPv4_PREFERRED" }
  }
  tags = { team = var.team }
}

resource "aws_appmesh_virtual_node" "web" {
  for_each  = toset(["v1", "v2"])
  name      = "web-${each.key}"
  mesh_name = aws_appmesh_mesh.shop.id
  spec {
    listener {
      port_mapping {
        port     = 8080
        protocol = "http"
      }
      health_check {
        protocol            = "http"
        path                = "/ping"
        healthy_threshold   = 2
        unhealthy_threshold = 2
        interval_millis     = 5000
        timeout_millis      = 2000
      }
      timeout {
        http {
          per_request {
            unit  = "s"
            value = 20
          }
        }
      }
      outlier_detection {
        max_server_errors    = 5
        max_ejection_percent = 50
        interval {
          unit  = "s"
          value = 10
        }
        base_ejection_duration {
          unit  = "s"
          value = 30
        }
      }
      connection_pool {
        http {
          max_connections      = 100
          max_pending_requests = 10
        }
      }
      tls {
        mode = "PERMISSIVE"
        certificate {
          file {
            certificate_chain = "/certs/chain.pem"
            private_key       = "/certs/key.pem"
          }
        }
      }
    }
    backend {
      virtual_service { virtual_service_name = "stock.shop.local" }
    }
    backend_defaults {
      client_policy {
        tls {
          ports = [443]
          validation {
            trust {
              file { certificate_chain = "/certs/ca.pem" }
            }
          }
        }
      }
    }
    service_discovery {
      dns { hostname = "web-${each.key}.shop.local" }
    }
    logging {
      access_log {
        file { path = "/dev/stdout" }
      }
    }
  }
  tags = { team = var.team }
}

resource "aws_appmesh_virtual_router" "web" {
  name      = "web"
  mesh_name = aws_appmesh_mesh.shop.id
  spec {
    listener {
      port_mapping {
        port     = 8080
        protocol = "http"
      }
    }
  }
}

resource "aws_appmesh_route" "web" {
  name                = "web"
  mesh_name           = aws_appmesh_mesh.shop.id
  virtual_router_name = aws_appmesh_virtual_router.web.name
  spec {
    priority = 1
    http_route {
      match {
        prefix = "/"
        header {
          name   = "x-canary"
          invert = true
          match { exact = "never" }
        }
      }
      retry_policy {
        http_retry_events = ["server-error"]
        tcp_retry_events  = ["connection-error"]
        max_retries       = 1
        per_retry_timeout {
          unit  = "s"
          value = 15
        }
      }
      action {
        weighted_target {
          virtual_node = aws_appmesh_virtual_node.web["v1"].name
          weight       = 100 - var.canary_weight
        }
        weighted_target {
          virtual_node = aws_appmesh_virtual_node.web["v2"].name
          weight       = var.canary_weight
        }
      }
    }
  }
}

resource "aws_appmesh_virtual_service" "web" {
  name      = "web.shop.local"
  mesh_name = aws_appmesh_mesh.shop.id
  spec {
    provider {
      virtual_router { virtual_router_name = aws_appmesh_virtual_router.web.name }
    }
  }
  tags = { team = var.team }
}

resource "aws_appmesh_virtual_gateway" "front" {
  name      = "front"
  mesh_name = aws_appmesh_mesh.shop.name
  spec {
    listener {
      port_mapping {
        port     = 8443
        protocol = "http"
      }
    }
  }
}

resource "aws_appmesh_gateway_route" "web" {
  name                 = "web"
  mesh_name            = aws_appmesh_mesh.shop.name
  virtual_gateway_name = aws_appmesh_virtual_gateway.front.name
  spec {
    http_route {
      match { prefix = "/web" }
      action {
        target {
          virtual_service { virtual_service_name = aws_appmesh_virtual_service.web.name }
        }
      }
    }
  }
}

data "aws_appmesh_mesh" "shop" {
  name = aws_appmesh_mesh.shop.name
}

output "account" { value = data.aws_caller_identity.me.account_id }
output "mesh_owner" { value = data.aws_appmesh_mesh.shop.mesh_owner }
