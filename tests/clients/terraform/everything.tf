# What main.tf does not have: every other protocol, certificate, trust, match and rewrite that the provider knows.

locals {
  mesh = aws_appmesh_mesh.shop.name
}

resource "aws_appmesh_virtual_node" "cart" {
  name      = "cart"
  mesh_name = local.mesh
  spec {
    listener {
      port_mapping {
        port     = 9090
        protocol = "grpc"
      }
      timeout {
        grpc {
          idle {
            unit  = "s"
            value = 0
          }
          per_request {
            unit  = "ms"
            value = 1500
          }
        }
      }
      connection_pool {
        grpc { max_requests = 5 }
      }
      tls {
        mode = "STRICT"
        certificate {
          acm { certificate_arn = "arn:aws:acm:eu-north-1:123456789012:certificate/12345678-1234-1234-1234-123456789012" }
        }
        validation {
          trust {
            file { certificate_chain = "/certs/ca.pem" }
          }
          subject_alternative_names {
            match { exact = ["shop.local"] }
          }
        }
      }
    }
    listener {
      port_mapping {
        port     = 9091
        protocol = "http2"
      }
      health_check {
        protocol            = "grpc"
        port                = 9091
        healthy_threshold   = 3
        unhealthy_threshold = 3
        interval_millis     = 6000
        timeout_millis      = 3000
      }
      timeout {
        http2 {
          idle {
            unit  = "s"
            value = 60
          }
        }
      }
      connection_pool {
        http2 { max_requests = 7 }
      }
      tls {
        mode = "STRICT"
        certificate {
          sds { secret_name = "own" }
        }
        validation {
          trust {
            sds { secret_name = "ca" }
          }
        }
      }
    }
    backend {
      virtual_service {
        virtual_service_name = "stock.shop.local"
        client_policy {
          tls {
            enforce = false
            ports   = [8443, 8444]
            certificate {
              file {
                certificate_chain = "/certs/chain.pem"
                private_key       = "/certs/key.pem"
              }
            }
            validation {
              trust {
                acm { certificate_authority_arns = ["arn:aws:acm-pca:eu-north-1:123456789012:certificate-authority/12345678-1234-1234-1234-123456789012"] }
              }
              subject_alternative_names {
                match { exact = ["stock.shop.local", "stock-2.shop.local"] }
              }
            }
          }
        }
      }
    }
    backend {
      virtual_service {
        virtual_service_name = "store.shop.local"
        client_policy {
          tls {
            certificate {
              sds { secret_name = "own" }
            }
            validation {
              trust {
                sds { secret_name = "ca" }
              }
            }
          }
        }
      }
    }
    service_discovery {
      aws_cloud_map {
        namespace_name = "shop.local"
        service_name   = "cart"
        attributes     = { stack = "blue" }
      }
    }
    logging {
      access_log {
        file {
          path = "/dev/stdout"
          format {
            json {
              key   = "at"
              value = "%START_TIME%"
            }
          }
        }
      }
    }
  }
}

resource "aws_appmesh_virtual_node" "store" {
  name      = "store"
  mesh_name = local.mesh
  spec {
    listener {
      port_mapping {
        port     = 5432
        protocol = "tcp"
      }
      health_check {
        protocol            = "tcp"
        healthy_threshold   = 2
        unhealthy_threshold = 2
        interval_millis     = 5000
        timeout_millis      = 2000
      }
      timeout {
        tcp {
          idle {
            unit  = "s"
            value = 30
          }
        }
      }
      connection_pool {
        tcp { max_connections = 4 }
      }
    }
    service_discovery {
      dns {
        hostname      = "store.shop.local"
        response_type = "ENDPOINTS"
        ip_preference = "IPv6_PREFERRED"
      }
    }
    logging {
      access_log {
        file {
          path = "/dev/stdout"
          format { text = "%START_TIME%\n" }
        }
      }
    }
  }
}

resource "aws_appmesh_virtual_node" "client" {
  name      = "client"
  mesh_name = local.mesh
  spec {}
}

resource "aws_appmesh_virtual_router" "many" {
  name      = "many"
  mesh_name = local.mesh
  spec {
    listener {
      port_mapping {
        port     = 9090
        protocol = "grpc"
      }
    }
    listener {
      port_mapping {
        port     = 9091
        protocol = "http2"
      }
    }
    listener {
      port_mapping {
        port     = 5432
        protocol = "tcp"
      }
    }
  }
}

resource "aws_appmesh_route" "grpc" {
  name                = "grpc"
  mesh_name           = local.mesh
  virtual_router_name = aws_appmesh_virtual_router.many.name
  spec {
    grpc_route {
      match {
        port         = 9090
        service_name = "shop.Cart"
        method_name  = "Add"
        metadata {
          name = "x-team"
          match { prefix = "b" }
        }
        metadata {
          name   = "x-age"
          invert = true
          match {
            range {
              start = 1
              end   = 7
            }
          }
        }
      }
      retry_policy {
        grpc_retry_events = ["unavailable", "deadline-exceeded"]
        http_retry_events = ["gateway-error"]
        tcp_retry_events  = ["connection-error"]
        max_retries       = 0
        per_retry_timeout {
          unit  = "ms"
          value = 250
        }
      }
      timeout {
        per_request {
          unit  = "s"
          value = 10
        }
        idle {
          unit  = "s"
          value = 10
        }
      }
      action {
        weighted_target {
          virtual_node = aws_appmesh_virtual_node.cart.name
          weight       = 1
          port         = 9090
        }
      }
    }
  }
}

resource "aws_appmesh_route" "http2" {
  name                = "http2"
  mesh_name           = local.mesh
  virtual_router_name = aws_appmesh_virtual_router.many.name
  spec {
    http2_route {
      match {
        port   = 9091
        method = "POST"
        scheme = "https"
        path { regex = "/cart/.*" }
        query_parameter {
          name = "q"
          match { exact = "1" }
        }
        header {
          name = "x-suffix"
          match { suffix = "z" }
        }
        header {
          name = "x-regex"
          match { regex = "a.c" }
        }
        header {
          name = "x-present"
        }
      }
      timeout {
        idle {
          unit  = "s"
          value = 0
        }
      }
      action {
        weighted_target {
          virtual_node = aws_appmesh_virtual_node.cart.name
          weight       = 100
          port         = 9091
        }
      }
    }
  }
}

resource "aws_appmesh_route" "tcp" {
  name                = "tcp"
  mesh_name           = local.mesh
  virtual_router_name = aws_appmesh_virtual_router.many.name
  spec {
    tcp_route {
      match { port = 5432 }
      timeout {
        idle {
          unit  = "s"
          value = 5
        }
      }
      action {
        weighted_target {
          virtual_node = aws_appmesh_virtual_node.store.name
          weight       = 1
        }
      }
    }
  }
}

resource "aws_appmesh_virtual_service" "cart" {
  name      = "cart.shop.local"
  mesh_name = local.mesh
  spec {
    provider {
      virtual_node { virtual_node_name = aws_appmesh_virtual_node.cart.name }
    }
  }
}

resource "aws_appmesh_virtual_service" "empty" {
  name      = "empty.shop.local"
  mesh_name = local.mesh
  spec {}
}

resource "aws_appmesh_virtual_gateway" "many" {
  name      = "many"
  mesh_name = local.mesh
  spec {
    listener {
      port_mapping {
        port     = 8443
        protocol = "http"
      }
      connection_pool {
        http {
          max_connections      = 10
          max_pending_requests = 5
        }
      }
      health_check {
        protocol            = "http"
        path                = "/ping"
        healthy_threshold   = 2
        unhealthy_threshold = 2
        interval_millis     = 5000
        timeout_millis      = 2000
      }
      tls {
        mode = "STRICT"
        certificate {
          acm { certificate_arn = "arn:aws:acm:eu-north-1:123456789012:certificate/12345678-1234-1234-1234-123456789012" }
        }
      }
    }
    listener {
      port_mapping {
        port     = 8444
        protocol = "grpc"
      }
      connection_pool {
        grpc { max_requests = 9 }
      }
      tls {
        mode = "PERMISSIVE"
        certificate {
          sds { secret_name = "own" }
        }
        validation {
          trust {
            sds { secret_name = "ca" }
          }
        }
      }
    }
    backend_defaults {
      client_policy {
        tls {
          validation {
            trust {
              file { certificate_chain = "/certs/ca.pem" }
            }
          }
        }
      }
    }
    logging {
      access_log {
        file { path = "/dev/stdout" }
      }
    }
  }
}

resource "aws_appmesh_gateway_route" "http" {
  name                 = "http"
  mesh_name            = local.mesh
  virtual_gateway_name = aws_appmesh_virtual_gateway.many.name
  spec {
    priority = 5
    http_route {
      match {
        prefix = "/shop/"
        port   = 8443
        hostname { suffix = ".example.com" }
        header {
          name = "x-a"
          match { exact = "b" }
        }
        query_parameter {
          name = "q"
          match { exact = "1" }
        }
      }
      action {
        rewrite {
          hostname { default_target_hostname = "DISABLED" }
          prefix { value = "/" }
        }
        target {
          virtual_service { virtual_service_name = aws_appmesh_virtual_service.web.name }
        }
      }
    }
  }
}

resource "aws_appmesh_gateway_route" "path" {
  name                 = "path"
  mesh_name            = local.mesh
  virtual_gateway_name = aws_appmesh_virtual_gateway.many.name
  spec {
    http_route {
      match {
        port = 8443
        path { exact = "/one" }
        hostname { exact = "example.com" }
      }
      action {
        rewrite {
          path { exact = "/two" }
        }
        target {
          virtual_service { virtual_service_name = aws_appmesh_virtual_service.web.name }
        }
      }
    }
  }
}

resource "aws_appmesh_gateway_route" "grpc" {
  name                 = "grpc"
  mesh_name            = local.mesh
  virtual_gateway_name = aws_appmesh_virtual_gateway.many.name
  spec {
    grpc_route {
      match {
        port         = 8444
        service_name = "shop.Cart"
      }
      action {
        target {
          port = 9090
          virtual_service { virtual_service_name = aws_appmesh_virtual_service.cart.name }
        }
      }
    }
  }
}

data "aws_appmesh_virtual_node" "cart" {
  name      = aws_appmesh_virtual_node.cart.name
  mesh_name = local.mesh
}

data "aws_appmesh_virtual_router" "many" {
  name      = aws_appmesh_virtual_router.many.name
  mesh_name = local.mesh
}

data "aws_appmesh_route" "grpc" {
  name                = aws_appmesh_route.grpc.name
  mesh_name           = local.mesh
  virtual_router_name = aws_appmesh_virtual_router.many.name
}

data "aws_appmesh_virtual_service" "cart" {
  name      = aws_appmesh_virtual_service.cart.name
  mesh_name = local.mesh
}

data "aws_appmesh_virtual_gateway" "many" {
  name      = aws_appmesh_virtual_gateway.many.name
  mesh_name = local.mesh
}

data "aws_appmesh_gateway_route" "grpc" {
  name                 = aws_appmesh_gateway_route.grpc.name
  mesh_name            = local.mesh
  virtual_gateway_name = aws_appmesh_virtual_gateway.many.name
}
