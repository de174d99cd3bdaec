CREATE DATABASE IF NOT EXISTS `{{ a.database|plain }}` CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci;
CREATE USER IF NOT EXISTS {{ a.user }}@'localhost';
ALTER USER {{ a.user }}@'localhost' IDENTIFIED BY {{ a.password }};
GRANT ALL PRIVILEGES ON `{{ a.database|plain }}`.* TO {{ a.user }}@'localhost' WITH GRANT OPTION;
