<?php
$title = {{ a.title }};
$languages = {{ a.languages }};
$database = [{{ answers.mydb.database }}, {{ answers.mydb.password }}];
$moderator = {{ a.moderator if a.comments else none }};
