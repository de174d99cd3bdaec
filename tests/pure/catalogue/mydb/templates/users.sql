{# The password is a literal, quotes included. #}
CREATE USER site IDENTIFIED BY {{ a.password }};
